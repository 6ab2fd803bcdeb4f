"""The verbs: parse, call, nothing more."""

import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from vitax import text_verbs
from vitax.arguments import BELOW, OVERRIDING, options_of, parser
from vitax.console import on_the_host, show
from vitax.core import elsewhere
from vitax.core.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, RunError, UserError


def _finetune(args: argparse.Namespace, rest: list[str]) -> int:
    if args.workdir is None and not args.dry_run:
        raise UserError("finetune: --workdir DIR is missing: where to leave the run (or --dry-run to see the recipe).")
    from vitax import finetune

    request = finetune.Request(
        data=args.data,
        checkpoint=args.checkpoint,
        val=args.val,
        val_fraction=args.val_fraction,
        flip=not args.no_flip,
        skip_unreadable=args.skip_unreadable,
        overrides=tuple(rest),
    )
    checked = finetune.make_recipe(request, args.workdir)
    if args.dry_run:
        print(json.dumps(checked.config, indent=1))
        return EXIT_DONE
    code = _run(checked, args.workdir, _finetune_command(args), rest)
    if code == EXIT_DONE:
        print(f"Classify images: vitax predict --checkpoint {shlex.quote(str(args.workdir))} IMAGES", file=sys.stderr)
    return code


def _finetune_command(args: argparse.Namespace) -> list[str]:
    command = ["finetune", "--data", args.data, "--checkpoint", args.checkpoint]
    command += ["--val", args.val] if args.val else []
    command += ["--val-fraction", str(args.val_fraction)] if args.val_fraction else []
    return command + ["--no-flip"] * args.no_flip + ["--skip-unreadable"] * args.skip_unreadable


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import recipe

    return _run(recipe.load(args.config, rest), args.workdir, ["train", "--config", args.config], rest)


def _run(checked: Any, workdir: Path, command: list[str], rest: Sequence[str]) -> int:
    from vitax import report, run

    code = run.train(checked, workdir)
    if code == EXIT_DONE:
        report.write_after_run(workdir)
    else:
        again = shlex.join(["vitax", *command, "--workdir", str(workdir), *rest])
        print(f"Saved. To go on: {again}", file=sys.stderr)
    return code


def _eval(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import infer

    result = infer.evaluate(args.checkpoint, rest, args.data)
    show(args, result, [f"{k}  {v:.4f}" for k, v in result["metrics"].items()] + [f"examples  {result['examples']}"])
    return EXIT_DONE


def _predict(args: argparse.Namespace, rest: list[str]) -> int:
    if args.text or args.pair or args.question is not None or args.passage is not None:
        return text_verbs.predict(args, rest)
    from vitax import predict

    form = predict.chosen_format(args.format, args.json, args.output)
    predict.check_target("--output", args.output)
    predict.check_target("--features", args.features, (".npz",))
    predict.check_target("--attention", args.attention, (".png", ".jpg", ".pdf", ".svg"))
    if not args.images:
        raise UserError("predict: nothing to look at: give image files, or --text or --question for a model of text.")
    files = predict.expand(args.images)
    predictor = predict.Predictor.load(args.checkpoint, rest, without_head=args.features is not None)
    maps = None
    if args.attention:
        from vitax import attention_map

        maps = attention_map.make_maps(predictor)
    rows, features = [], []
    with args.output.open("w", newline="") if args.output else contextlib.nullcontext(sys.stdout) as stream:
        writer = predict.Writer(stream, form)
        for file, probabilities, feature in predictor.classify(files, args.batch_size):
            if feature is None:
                print(f"vitax: {probabilities}", file=sys.stderr)
                continue
            rows.append(predictor.row(file, probabilities, args.topk))
            writer.write(rows[-1])
            features += [feature] if args.features else []
        writer.close()
    if args.features and rows:
        predict.save_features(args.features, [row["file"] for row in rows], features)
    if maps is not None and rows:
        drawn = attention_map.draw(args.attention, predictor, maps, rows)
        of = f"the first {drawn} of {len(rows)} images" if drawn < len(rows) else f"{drawn} image(s)"
        print(f"{args.attention}: attention on {of}", file=sys.stderr)
    if len(rows) == len(files):
        return EXIT_DONE
    print(f"{len(files) - len(rows)} of {len(files)} files could not be classified.", file=sys.stderr)
    return EXIT_FAILED


def _pseudo_label(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import pseudo_label, recipe

    student = recipe.load(args.config, rest)
    rows = pseudo_label.write(args.checkpoint, student)
    show(args, rows, pseudo_label.lines(rows, student.data.num_examples))
    return EXIT_DONE


def _quickstart(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import quickstart

    result = quickstart.run_all(args.workdir, args.seeds, rest)
    show(args, result, quickstart.lines(result))
    return EXIT_DONE


def _recipes(args: argparse.Namespace, rest: list[str]) -> int:
    if args.explain:
        return _explain(args, rest)
    from vitax import catalogue

    if args.devices is not None:
        raise UserError("recipes: --devices lays the mesh of one recipe out: give it with --explain NAME[:VARIANT].")
    rows = catalogue.recipes(args.pattern)
    show(args, rows, catalogue.recipe_lines(rows))
    return EXIT_DONE


def _explain(args: argparse.Namespace, rest: list[str]) -> int:
    on_the_host()
    from vitax import explain, recipe

    found = explain.explain(recipe.load(args.explain, rest), 1 if args.devices is None else args.devices)
    show(args, found, explain.lines(found))
    return EXIT_DONE


def _models(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import catalogue

    rows = catalogue.models(args.pattern)
    if args.json:
        print(json.dumps(list(rows)))
    else:
        for line in catalogue.model_lines(rows):
            print(line, flush=True)
    return EXIT_DONE


def _fetch(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import fetch
    from vitax.train import terminal

    with terminal.download_bar() as progress:
        path = fetch.fetch(args.model, args.cache, progress)
    show(args, {"model": args.model, "path": str(path)}, [str(path)])
    return EXIT_DONE


def _cost(args: argparse.Namespace, rest: list[str]) -> int:
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
        show(args, tables, paper.lines(tables))
    else:
        from vitax import bill
        from vitax.cost import statement

        account = bill.read(args.workdir, args.usd_per_hour)
        show(args, account, statement.lines(account))
    return EXIT_DONE


def _table2(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import table2

    columns = table2.table(args.runs)
    show(args, columns, table2.lines(columns))
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
        show(args, found, plan_text.search_lines(found))
        return EXIT_DONE
    if not args.fast:
        print(f"compiling for {topology} ...", file=sys.stderr, flush=True)
    result = plan.plan(checked, topology, mfu=args.mfu, fast=args.fast)
    show(args, result, plan_text.lines(result))
    return EXIT_DONE


def _report(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import report

    several = len(args.workdir) > 1
    print(report.compare(args.workdir, args.output) if several else report.write(args.workdir[0]))
    return EXIT_DONE


def _compare(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import compare

    found = compare.compare(args.workdirs)
    show(args, found, compare.lines(found))
    return EXIT_DONE


def _doctor(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import doctor

    checks = doctor.examine(seconds=args.timeout)
    show(args, [vars(check) for check in checks], doctor.lines(checks))
    return EXIT_FAILED if any(check.status == doctor.FAIL for check in checks) else EXIT_DONE


def _convert(args: argparse.Namespace, rest: list[str]) -> int:
    on_the_host()
    from vitax import config_files
    from vitax.weights import reading, writing

    overrides = config_files.parse_overrides(rest)
    for key, _ in overrides:
        if key != "data.image_size":
            raise UserError(
                f"convert: --config.{key}: only --config.data.image_size=(HEIGHT,WIDTH) means something here."
            )
    row = writing.run(args.source, args.target, args.to, reading.stated_size(overrides))
    show(args, row, writing.lines(row))
    return EXIT_DONE


def _ckpt(args: argparse.Namespace, rest: list[str]) -> int:
    on_the_host()
    from vitax import ckpt

    if args.below == "ls":
        rows = ckpt.listing(args.checkpoint)
        show(args, rows, ckpt.listing_lines(rows))
    elif args.below == "verify":
        rows = ckpt.verify(args.checkpoint)
        show(args, rows, ckpt.verify_lines(rows))
        return EXIT_FAILED if any(row["problems"] for row in rows) else EXIT_DONE
    elif args.below == "export":
        row = ckpt.write_weights(args.checkpoint, args.out, args.weights, args.last)
        show(args, row, ckpt.export_lines(row))
    else:
        rows = ckpt.copy(args.source, args.target)
        show(args, rows, ckpt.copy_lines(rows))
    return EXIT_DONE


def _launch(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax.launch import settings

    asked = settings.read(args, rest)
    from vitax.launch.launchers import LAUNCHERS

    return LAUNCHERS[asked.kind](asked)


COMMANDS = {
    "train": _train,
    "finetune": _finetune,
    "eval": _eval,
    "predict": _predict,
    "generate": text_verbs.generate,
    "pseudo-label": _pseudo_label,
    "quickstart": _quickstart,
    "recipes": _recipes,
    "models": _models,
    "fetch": _fetch,
    "cost": _cost,
    "table2": _table2,
    "plan": _plan,
    "report": _report,
    "compare": _compare,
    "convert": _convert,
    "ckpt": _ckpt,
    "tokenizer": text_verbs.tokenizer,
    "doctor": _doctor,
    "launch": _launch,
}


def _check_rest(args: argparse.Namespace, rest: list[str]) -> None:
    """Refuses unknown arguments, recipes and fields that lead nowhere, before JAX is imported."""
    if args.verb == "launch":  # has a table of its own
        return
    options = options_of(f"{args.verb} {args.below}" if args.verb in BELOW else args.verb)
    spec = vars(args).get("config") or vars(args).get("explain")
    from vitax import config_files

    if spec:
        config_files.load(spec, rest, options)
    elif args.verb in OVERRIDING:
        config_files.parse_overrides(rest, {}, options)
    elif rest:
        raise UserError(f"Unknown argument {rest[0]}.{elsewhere.option(rest[0], options)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code (0 done, 1 failed, 2 bad input, 75, 130)."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for noisy in ("absl", "orbax", "jax._src.xla_bridge"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        args, rest = parser().parse_known_args(argv)
        _check_rest(args, rest)
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
