"""The verbs: parse, call, nothing more."""

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import vitax
from vitax.core import paths
from vitax.core.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, RunError, UserError, suggest
from vitax.launch.settings import KINDS as LAUNCH_KINDS
from vitax.launch.settings import add_arguments as add_launch_arguments

VERBS = {
    "train": "train a recipe in a workdir, going on where it stopped",
    "eval": "evaluate a checkpoint exactly",
    "predict": "classify image files with a checkpoint",
    "quickstart": "pre-train, fine-tune and compare with from-scratch, in minutes on a CPU",
    "recipes": "list the recipes, with the numbers they reproduce",
    "models": "list the published models: parameters, GMACs, tokens",
    "cost": "show what a run has cost so far, or count the compute of the ViT paper",
    "plan": "will it fit, how long, what does it cost: on TPU slices that you do not hold yet",
    "report": "write report.html for a workdir",
    "launch": "train on TPU slices, GKE, Slurm or several processes here, started again where that helps",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        words = message.split("'")
        if message.startswith("argument tpu-vm|") and len(words) > 1:
            message = (
                f'unknown launcher "{words[1]}".{suggest(words[1], LAUNCH_KINDS)} Launchers: {", ".join(LAUNCH_KINDS)}.'
            )
        elif "invalid choice" in message and len(words) > 1:
            message = f'unknown verb "{words[1]}".{suggest(words[1], VERBS)} Verbs: {", ".join(VERBS)}.'
        elif "required: VERB" in message:
            message = f"a verb is missing. Verbs: {', '.join(VERBS)}."
        elif "required: " in message:
            wanted = message.rpartition("required: ")[2].split(", ")
            near = [suggest(w, wanted) for w in sys.argv[1:] if w.startswith("--") and w not in wanted]
            message += "".join(near)
        raise UserError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vitax",
        description="Train transformers with JAX, and know what a run costs.",
        epilog="Recipe fields are overridden as --config.optimizer.lr=3e-4 (any dotted path).",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vitax {vitax.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    add = {
        name: verbs.add_parser(name, help=text, description=text, allow_abbrev=False) for name, text in VERBS.items()
    }
    for name in ("train", "eval", "predict", "quickstart", "models", "recipes", "cost", "plan"):
        if name != "train":
            add[name].add_argument("--json", action="store_true", help="print one JSON value on stdout")
    for name in ("train", "plan"):
        add[name].add_argument("--config", required=True, metavar="NAME[:VARIANT]", help="a recipe name or PATH.py")
    add["train"].add_argument("--workdir", required=True, type=paths.parse, help="where everything is left")
    for name in ("eval", "predict"):
        add[name].add_argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="a workdir; newest by default")
    add["predict"].add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    add["predict"].add_argument("--topk", type=int, default=5)
    add["quickstart"].add_argument("--workdir", type=paths.parse, default=Path("runs/quickstart"))
    add["quickstart"].add_argument("--seeds", type=int, default=3, help="runs of each kind (default 3)")
    add["models"].add_argument("pattern", nargs="?", default="*", help="shell pattern, e.g. 'ViT-B*'")
    add["recipes"].add_argument("pattern", nargs="?", default="*", help="shell pattern")
    add["cost"].add_argument("--workdir", type=paths.parse, help="of a run: what it has cost so far")
    add["cost"].add_argument("--paper", action="store_true", help="tables 2 and 6 of the ViT paper, counted again")
    add["cost"].add_argument(
        "--usd-per-hour",
        action="append",
        default=[],
        metavar="[KIND=]USD",
        help="price of a chip-hour, in place of the list price; once for each device kind where there are several",
    )
    add["plan"].add_argument("--topology", required=True, metavar="GEN:SHAPE", help="chips, e.g. v3:8x8, v5e:16x16")
    add["plan"].add_argument("--slices", type=int, default=1, help="how many such slices (default 1)")
    add["plan"].add_argument("--mfu", type=float, help="assume this model FLOPs utilisation, e.g. 0.4")
    add["plan"].add_argument("--search", action="store_true", help="rank microbatch, remat, sharding, scan or unroll")
    add["plan"].add_argument("--fast", action="store_true", help="arithmetic alone, no compiler, seconds")
    add["report"].add_argument("--workdir", required=True, type=paths.parse)
    add_launch_arguments(add["launch"])
    return parser


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import recipe

    checked = recipe.load(args.config, rest)
    from vitax import report, run

    code = run.train(checked, args.workdir)
    if code == EXIT_DONE:
        report.write_after_run(args.workdir)
    else:
        command = ["vitax", "train", "--config", args.config, "--workdir", str(args.workdir), *rest]
        print(f"Saved. To go on: {shlex.join(command)}", file=sys.stderr)
    return code


def _eval(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import infer

    result = infer.evaluate(args.checkpoint, rest)
    _print(args, result, [f"{k}  {v:.4f}" for k, v in result["metrics"].items()] + [f"examples  {result['examples']}"])
    return EXIT_DONE


def _predict(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import infer

    result = infer.predict(args.checkpoint, args.images, args.topk, rest)
    lines = [
        f"{row['file']}: " + ", ".join(f"{k['label']} {k['probability']:.3f}" for k in row["topk"]) for row in result
    ]
    _print(args, result, lines)
    return EXIT_DONE


def _quickstart(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import quickstart

    result = quickstart.run_all(args.workdir, args.seeds, rest)
    _print(args, result, quickstart.lines(result))
    return EXIT_DONE


def _recipes(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import catalogue

    _no_more(rest)
    rows = catalogue.recipes(args.pattern)
    _print(args, rows, catalogue.recipe_lines(rows))
    return EXIT_DONE


def _models(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import catalogue

    _no_more(rest)
    rows = catalogue.models(args.pattern)
    _print(args, rows, catalogue.model_lines(rows))
    return EXIT_DONE


def _cost(args: argparse.Namespace, rest: list[str]) -> int:
    _no_more(rest)
    if args.paper == (args.workdir is not None):
        raise UserError(
            f"cost: {'both' if args.paper else 'neither'} of --workdir and --paper given; expected one: --workdir DIR "
            "(what a run has cost so far) or --paper (tables 2 and 6 of the ViT paper)."
        )
    if args.paper and args.usd_per_hour:
        raise UserError("cost: --usd-per-hour is the price of a run: give --workdir DIR, not --paper.")
    if args.paper:
        from vitax import paper

        tables = paper.tables()
        _print(args, tables, paper.lines(tables))
    else:
        from vitax import bill
        from vitax.cost import statement

        account = bill.read(args.workdir, args.usd_per_hour)
        _print(args, account, statement.lines(account))
    return EXIT_DONE


def _plan(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import plan_text
    from vitax.cost.topology import Topology

    topology = Topology.parse(args.topology, args.slices)
    from vitax import recipe

    checked = recipe.load(args.config, rest)
    from vitax import plan, plan_search

    if args.search:
        found = plan_search.search(checked, topology, fast=args.fast)
        _print(args, found, plan_text.search_lines(found))
        return EXIT_DONE
    if not args.fast:
        print(f"compiling for {topology} ...", file=sys.stderr, flush=True)
    result = plan.plan(checked, topology, mfu=args.mfu, fast=args.fast)
    _print(args, result, plan_text.lines(result))
    return EXIT_DONE


def _report(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import report

    _no_more(rest)
    print(report.write(args.workdir))
    return EXIT_DONE


def _launch(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax.launch import settings

    asked = settings.read(args, rest)
    from vitax.launch.launchers import LAUNCHERS

    return LAUNCHERS[asked.kind](asked)


COMMANDS = {
    "train": _train,
    "eval": _eval,
    "predict": _predict,
    "quickstart": _quickstart,
    "recipes": _recipes,
    "models": _models,
    "cost": _cost,
    "plan": _plan,
    "report": _report,
    "launch": _launch,
}


def _no_more(rest: list[str]) -> None:
    if rest:
        from vitax.config_files import OPTIONS

        raise UserError(f"Unknown argument {rest[0]}.{suggest(rest[0].partition('=')[0], OPTIONS)}")


def _print(args: argparse.Namespace, value: Any, lines: list[str]) -> None:
    print(json.dumps(value) if args.json else "\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code (0 done, 1 failed, 2 bad input, 75, 130)."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for noisy in ("absl", "orbax", "jax._src.xla_bridge"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        args, rest = _parser().parse_known_args(argv)
        return COMMANDS[args.verb](args, rest)
    except UserError as error:
        print(f"vitax: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except RunError as error:
        print(f"vitax: {error}", file=sys.stderr)
        return EXIT_FAILED


def console() -> NoReturn:
    """Entry point of the ``vitax`` command."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `vitax recipes | head`: nobody reads on, which is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_DONE
    sys.exit(code)


if __name__ == "__main__":
    console()
