"""The command line as tables: verbs, what each takes, and the parser that they make."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import vitax
from vitax.core import elsewhere, paths
from vitax.core.errors import UserError, suggest
from vitax.launch import settings as launching

VERBS = {
    "train": "train a recipe in a workdir, going on where it stopped",
    "finetune": "fine-tune a checkpoint on your own images: class folders or a CSV of path,label",
    "eval": "evaluate a checkpoint exactly",
    "predict": "classify images with a checkpoint, or fill, classify, embed and question texts",
    "generate": "continue a prompt with a language model's checkpoint",
    "pseudo-label": "label images with a teacher, for a student's recipe (Noisy Student)",
    "quickstart": "pre-train, fine-tune and compare with from-scratch, in minutes on a CPU",
    "recipes": "list the recipes, with the numbers they reproduce, or explain one",
    "models": "list the published models: parameters, GMACs, tokens",
    "fetch": "bring a published weight file into the local cache, and print its path",
    "cost": "show what a run has cost so far, or count the compute of the ViT paper",
    "table2": "the ViT paper's Table 2 beside your own runs, with the cost of each column",
    "plan": "will it fit, how long, what does it cost: on TPU slices that you do not hold yet",
    "report": "write report.html for a workdir, or one page over several",
    "launch": "train on TPU slices, GKE, Slurm or several processes here, started again where that helps",
    "compare": "runs side by side: metrics, cost, and the recipe fields that differ",
    "convert": "published weights to checkpoints and back: Google's npz, timm, Hugging Face",
    "ckpt": "checkpoints: list, verify, export, copy",
    "tokenizer": "tokenizers: train one on your own text, write that of a checkpoint",
    "doctor": "look for what is wrong with this machine, and say how to mend it; exit code 1 if anything is",
}
CKPT_VERBS = {
    "ls": "list the steps: size, date, whole or damaged, digest",
    "verify": "check every file and every array; exit code 1 if anything is damaged",
    "export": "write the parameters to a safetensors or npz file",
    "cp": "copy steps between folders and buckets; an interrupted copy is never taken for a whole one",
}
TOKENIZER_VERBS = {
    "train": "learn a vocabulary from text and write it as tokenizer.json",
    "export": "write the tokenizer that a checkpoint carries to a folder",
}
# Verbs that have verbs of their own.
BELOW = {"ckpt": CKPT_VERBS, "tokenizer": TOKENIZER_VERBS}

Argument = tuple[tuple[str, ...], dict[str, Any]]
Number = TypeVar("Number", int, float)


def _number(kind: Callable[[str], Number], good: Callable[[Number], bool], expected: str) -> Callable[[str], Number]:
    """The type of an option, checked as it is read: before anything is imported for it."""

    def parse(text: str) -> Number:
        try:
            if good(value := kind(text)):
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}.")

    return parse


_WHOLE = _number(int, lambda n: n >= 1, "at least 1, a whole number")
_SHARE = _number(float, lambda x: 0 < x < 1, "a share between 0 and 1, such as 0.1")
_MFU = _number(float, lambda x: 0 < x <= 1, "above 0 and at most 1, such as 0.4")
_WARMTH = _number(float, lambda x: 0 <= x < math.inf, "at least 0, such as 0.8")
_PORTION = _number(float, lambda x: 0 < x <= 1, "above 0 and at most 1, such as 0.9")
_SECONDS = _number(float, lambda x: 0 < x < math.inf, "a number of seconds above 0")


def _argument(*names: str, **options: Any) -> Argument:
    return names, options


_JSON = _argument("--json", action="store_true", help="print one JSON value on stdout")
_CONFIG = _argument("--config", required=True, metavar="NAME[:VARIANT]", help="a recipe name or PATH.py")
_CHECKPOINT = _argument(
    "--checkpoint", required=True, metavar="DIR[@STEP]|FILE", help="a workdir (newest by default) or published weights"
)
_TARGET = _argument("checkpoint", metavar="DIR[@STEP]", help="a workdir")
_PATTERN = _argument("pattern", nargs="?", default="*", help="shell pattern, e.g. 'ViT-B*'")
_PRICE = _argument(
    "--usd-per-hour",
    action="append",
    default=[],
    metavar="[KIND=]USD",
    help="price of a chip-hour, in place of the list price; once for each device kind where there are several",
)
_WEIGHTS = {"action": "store_const", "dest": "weights"}

ARGUMENTS: dict[str, tuple[Argument, ...]] = {
    "train": (
        _CONFIG,
        _argument("--workdir", required=True, type=paths.parse, help="where everything is left"),
    ),
    "finetune": (
        _argument(
            "--data",
            required=True,
            metavar="DIR|CSV",
            help="a folder with one folder a class, or with train/ and val/ of these; or a CSV of path,label",
        ),
        _argument(
            "--checkpoint",
            required=True,
            metavar="DIR[@STEP]|FILE",
            help="what to start from: the workdir of a run, or published weights",
        ),
        _argument("--workdir", type=paths.parse, help="where everything is left"),
        _argument("--val", metavar="DIR|CSV", help="validation images, where they are not in DIR/val"),
        _argument(
            "--val-fraction",
            type=_SHARE,
            metavar="F",
            help="of each class to hold out (default 0.1; 0.2 of few images)",
        ),
        _argument("--no-flip", action="store_true", help="do not mirror images: text, digits, left and right"),
        _argument(
            "--skip-unreadable", action="store_true", help="leave out files that cannot be used instead of stopping"
        ),
        _argument("--dry-run", action="store_true", help="check the data, print the recipe as JSON, and stop"),
    ),
    "eval": (
        _JSON,
        _CHECKPOINT,
        _argument(
            "--data",
            metavar="DIR|CSV",
            help="labelled images in place of the recipe's: class folders (its val/) or a CSV",
        ),
    ),
    "predict": (
        _JSON,
        _CHECKPOINT,
        _argument("images", nargs="*", metavar="FILE|DIR|GLOB", help="DIR: all images in it; quote a GLOB"),
        _argument(
            "--text", action="append", default=[], metavar="TEXT", help="for a BERT, in place of images; repeat it"
        ),
        _argument("--pair", action="append", default=[], metavar="TEXT", help="the second sentence to each --text"),
        _argument("--question", metavar="TEXT", help="for a BERT that answers from --passage"),
        _argument("--passage", metavar="TEXT|FILE", help="where the answer is looked for"),
        _argument("--topk", type=_WHOLE, default=5, help="guesses for each image or text (default 5)"),
        _argument("--format", metavar="F", help="text, json, jsonl or csv (default: by --output, else text)"),
        _argument("--output", type=Path, metavar="FILE", help="write there instead of on stdout"),
        _argument("--batch-size", type=_WHOLE, default=64, metavar="N", help="images at a time (default 64)"),
        _argument(
            "--features",
            type=Path,
            metavar="FILE.npz",
            help="write files and float32 features [N, D], as the head sees them; of texts, embeddings",
        ),
        _argument(
            "--attention", type=Path, metavar="FILE.png", help="draw where the model looks: last block and rollout"
        ),
    ),
    "generate": (
        _argument(
            "--json",
            action="store_true",
            help="print JSON on stdout: an object for one text of the command line, a list for several or a file",
        ),
        _argument(
            "--checkpoint", required=True, metavar="DIR[@STEP]|FILE", help="a language model, or an encoder-decoder"
        ),
        _argument("--prompt", action="append", metavar="TEXT", help="to continue; may be given several times"),
        _argument("--source", action="append", metavar="TEXT|FILE", help="to translate: a text, or a file of lines"),
        _argument("--max-tokens", type=_WHOLE, metavar="N", help="the longest text (default 200, or source + 50)"),
        _argument("--temperature", type=_WARMTH, metavar="X", help="0 takes the likeliest (default 1)"),
        _argument("--top-k", type=_WHOLE, metavar="N", help="draw from the N likeliest tokens (default: from all)"),
        _argument("--top-p", type=_PORTION, metavar="P", help="draw from the likeliest that hold P (default 1)"),
        _argument("--beam", type=_WHOLE, metavar="N", help="search with N candidates (default 4 with --source)"),
        _argument("--length-penalty", type=_WARMTH, metavar="A", help="of the search (default 0.6)"),
        _argument("--stop", action="append", metavar="TEXT", help="end before this text; may be given several times"),
        _argument("--seed", type=int, metavar="N", help="of the draws (default 0)"),
        _argument("--stream", action="store_true", help="print the text as it is made"),
    ),
    "pseudo-label": (
        _JSON,
        _argument("--checkpoint", required=True, metavar="DIR[@STEP]", help="the teacher's workdir"),
        _argument(
            "--config",
            required=True,
            metavar="NAME[:VARIANT]",
            help="the student's recipe: its source of kind pseudo_labelled names the images and the folder to write",
        ),
    ),
    "quickstart": (
        _JSON,
        _argument("--workdir", type=paths.parse, default=Path("runs/quickstart")),
        _argument("--seeds", type=_WHOLE, default=3, help="runs of each kind (default 3)"),
    ),
    "recipes": (
        _JSON,
        _PATTERN,
        _argument(
            "--explain", metavar="NAME[:VARIANT]", help="steps, learning rate, decay, parameters, sharding of one"
        ),
        _argument("--devices", type=_WHOLE, help="with --explain: lay its mesh over so many (default 1)"),
    ),
    "models": (_JSON, _PATTERN),
    "fetch": (
        _JSON,
        _argument("model", metavar="NAME", help="e.g. imagenet21k/ViT-B_16, BiT-M-R50x1, timm/MODEL.TAG, OWNER/MODEL"),
        _argument(
            "--cache", type=Path, metavar="DIR", help="where files are kept (default: VITAX_WEIGHTS, else ~/.cache)"
        ),
    ),
    "cost": (
        _JSON,
        _argument("--workdir", type=paths.parse, help="of a run: what it has cost so far"),
        _argument("--paper", action="store_true", help="tables 2 and 6 of the ViT paper, counted again"),
        _PRICE,
    ),
    "table2": (
        _JSON,
        _argument(
            "runs", nargs="*", type=Path, metavar="DIR", help="folders whose runs are filled in where they belong"
        ),
    ),
    "plan": (
        _JSON,
        _CONFIG,
        _argument("--topology", required=True, metavar="GEN:SHAPE", help="chips, e.g. v3:8x8, v5e:16x16"),
        _argument("--slices", type=_WHOLE, default=1, help="how many such slices (default 1)"),
        _argument("--mfu", type=_MFU, help="assume this model FLOPs utilisation, e.g. 0.4"),
        _argument("--search", action="store_true", help="rank microbatch, remat, sharding, scan or unroll"),
        _argument("--fast", action="store_true", help="arithmetic alone, no compiler, seconds"),
    ),
    "report": (
        _argument("--workdir", required=True, type=paths.parse, nargs="+", help="one run, or several to compare"),
        _argument("--output", type=Path, default=Path("compared.html"), help="the page over several runs"),
    ),
    "compare": (_JSON, _argument("workdirs", nargs="+", type=Path, metavar="DIR", help="workdirs, at least two")),
    "doctor": (
        _JSON,
        _argument("--timeout", type=_SECONDS, default=120.0, metavar="SECONDS", help="JAX may take to start (120)"),
    ),
    "convert": (
        _JSON,
        _argument("source", metavar="SRC", help="a workdir (DIR[@STEP]) or weights: .npz, .safetensors, FILE:PART"),
        _argument("target", type=Path, metavar="DST", help="a file; for timm and hf a folder"),
        _argument("--to", required=True, metavar="LAYOUT", help="vitax, npz (Google's), timm or hf (Hugging Face)"),
    ),
    "ckpt ls": (_JSON, _argument("checkpoint", metavar="DIR", help="a workdir")),
    "ckpt verify": (_JSON, _argument("checkpoint", metavar="DIR[@STEP]", help="a workdir; all steps by default")),
    "ckpt export": (
        _JSON,
        _TARGET,
        _argument("out", type=Path, metavar="OUT", help="*.safetensors or *.npz"),
        _argument("--ema", const="ema", help="averaged parameters (where there are any, the default)", **_WEIGHTS),
        _argument("--params", const="params", help="parameters of the last step, not averaged", **_WEIGHTS),
        _argument("--last", type=_WHOLE, default=1, metavar="N", help="the mean of the last N checkpoints (default 1)"),
    ),
    "ckpt cp": (
        _JSON,
        _argument(
            "source", metavar="SRC[@STEP]", help="a workdir, path or URL (gs://bucket/run); all steps by default"
        ),
        _argument("target", metavar="DST", help="a workdir, path or URL"),
    ),
    "tokenizer train": (
        _JSON,
        _argument("paths", nargs="*", metavar="PATH", help="files and folders of .txt, .gz and .jsonl"),
        _argument("--config", metavar="NAME[:VARIANT]", help="in place of PATHs: the text that a recipe trains on"),
        _argument(
            "--kind", required=True, metavar="KIND", help="bpe (bytes, as GPT-2's) or wordpiece (words, as BERT's)"
        ),
        _argument("--vocab-size", required=True, type=_WHOLE, metavar="N", help="how many tokens, marks among them"),
        _argument("--out", required=True, type=Path, metavar="FILE.json", help="the file to write"),
        _argument("--lowercase", action="store_true", help="wordpiece: lower case, accents stripped"),
        _argument("--field", default="text", metavar="NAME", help="of JSON lines, that holds the text (default text)"),
    ),
    "tokenizer export": (_JSON, _TARGET, _argument("out", type=Path, metavar="FOLDER", help="a new folder")),
}
# Verbs that take ``--config.PATH=VALUE`` though they name no recipe.
OVERRIDING = ("finetune", "eval", "predict", "generate", "quickstart", "convert")


def options_of(verb: str) -> tuple[str, ...]:
    """Options of a verb (``eval``, ``ckpt ls``)."""
    return tuple(n for names, _ in ARGUMENTS[verb] for n in names if n.startswith("--"))


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        words = message.split("'")
        under = self.prog.removeprefix("vitax").strip()
        verbs, what = (BELOW[under], f"{under} verb") if under in BELOW else (VERBS, "verb")
        listed = f"{what.capitalize()}s: {', '.join(verbs)}."
        if message.startswith("argument tpu-vm|") and len(words) > 1:
            known = launching.KINDS
            message = f'unknown launcher "{words[1]}".{suggest(words[1], known)} Launchers: {", ".join(known)}.'
        elif "invalid choice" in message and len(words) > 1:
            message = f'unknown {what} "{words[1]}".{suggest(words[1], verbs)} {listed}'
        elif "required: VERB" in message:
            message = f"a {what} is missing. {listed}"
        elif "required: " in message:
            wanted = message.rpartition("required: ")[2].split(", ")
            given = [w.partition("=")[0] for w in sys.argv[1:] if w.startswith("--")]
            near = [suggest(elsewhere.OPTIONS.get(w.lstrip("-").replace("-", "_"), w), wanted) for w in given]
            message = f"{under + ': ' if under else ''}{message}{'.' * any(near)}" + "".join(near)
            message += " For example --topology v3:8x8." if "--topology" in wanted else ""
            message += f" (usage: {' '.join(self.format_usage().removeprefix('usage: ').split())})"
        elif option := re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL):
            name, wrong = option.groups()
            message = f"{name}: expected a value." if wrong.startswith("expected") else f"{name} {wrong}"
        raise UserError(message)


def parser() -> Parser:
    """The parser of ``vitax``; ``verb``, and ``below`` where it has verbs of its own, say what was asked for."""
    whole = Parser(
        prog="vitax",
        description="Train transformers with JAX, and know what a run costs.",
        epilog="Recipe fields are overridden as --config.optimizer.lr=3e-4 (any dotted path).",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"vitax {vitax.__version__}")
    for name, verb in _verbs(whole, VERBS, "verb").items():
        if name in BELOW:
            for below, sub in _verbs(verb, BELOW[name], "below").items():
                _fill(sub, ARGUMENTS[f"{name} {below}"])
        elif name == "launch":
            launching.add_arguments(verb)
        else:
            _fill(verb, ARGUMENTS[name])
    return whole


def _verbs(above: argparse.ArgumentParser, table: Mapping[str, str], dest: str) -> dict[str, argparse.ArgumentParser]:
    made = above.add_subparsers(dest=dest, metavar="VERB", required=True, parser_class=Parser)
    return {
        name: made.add_parser(name, help=text, description=text, allow_abbrev=False) for name, text in table.items()
    }


def _fill(verb: argparse.ArgumentParser, arguments: tuple[Argument, ...]) -> None:
    one_of: dict[str, Any] = {}  # options that set the same thing exclude each other
    for names, options in arguments:
        if "dest" in options:
            group = one_of.setdefault(options["dest"], None) or verb.add_mutually_exclusive_group()
            one_of[options["dest"]] = group
            group.add_argument(*names, **options)
        else:
            verb.add_argument(*names, **options)
