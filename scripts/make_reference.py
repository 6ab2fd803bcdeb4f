"""Writes ``docs/reference/`` from the code: recipe fields and command-line verbs.

    python scripts/make_reference.py

What it reads: the tables that the recipe builder and the command line use themselves, the
signatures of the constructors, and their docstrings (Google form). ``tests/test_docs.py``
fails where the files differ from what this makes.
"""

import argparse
import collections
import dataclasses
import inspect
import pathlib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import vitax
from vitax import arguments, recipe
from vitax.construct import fields_of
from vitax.core import durations, errors
from vitax.cost.chips import Chip
from vitax.data.documents import DOCUMENT_SOURCES
from vitax.data.image_ops import OPS
from vitax.data.labelled_text import LABELLED_TEXT_SOURCES
from vitax.data.prompts import PROMPT_SOURCES
from vitax.data.sources import SOURCES
from vitax.data.squad import QUESTION_SOURCES
from vitax.data.text_sources import PAIR_SOURCES, TEXT_SOURCES
from vitax.data.tokenizers import TOKENIZERS
from vitax.layers.remat import REMAT_POLICIES
from vitax.models.table import MODELS
from vitax.optim.optimizers import OPTIMIZERS
from vitax.optim.schedules import SCHEDULES
from vitax.parallel.mesh import MeshSpec
from vitax.parallel.rules import DEFAULT_RULES
from vitax.specs.documents import DocumentSpec
from vitax.specs.images import DataSpec
from vitax.specs.labelled_text import LabelledTextSpec
from vitax.specs.pairs import PairSpec
from vitax.specs.prompts import PromptSpec
from vitax.specs.questions import QuestionSpec
from vitax.specs.text import TextSpec

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "reference"
MADE = "<!-- Made by `python scripts/make_reference.py`; do not edit. -->"


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a recipe.

    Attributes:
      path: dotted, as in ``--config.PATH``.
      about: a sentence.
      table: kind -> constructor, or None where the part has one form.
      target: the constructor of a part of one form.
      given: fields that the recipe fills in from elsewhere -> from where.
      hidden: fields that a recipe cannot set.
    """

    path: str
    about: str
    table: Mapping[str, Any] | None = None
    target: Any = None
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hidden: tuple[str, ...] = ()


OF_CLASSES = {"num_classes": "`data.num_classes`"}
OF_DATA = {"num_examples": "`data.num_examples`", **OF_CLASSES}
OF_IMAGES = {"image_size": "`data.image_size`", "channels": "`data.channels`"}
OF_EXAMPLES = {
    **OF_CLASSES,
    "image_size": "`data.image_size`",
    "vocab_size": "`data.vocab_size`",
    "context": "`data.length`",
}
UNITS = "A duration is one of " + ", ".join(f"`{u}`" for u in durations.UNITS) + ", e.g. `{steps: 100}`"

PARTS = (
    Part(
        "model",
        "What is trained: `kind` and the fields of the module.",
        table=MODELS,
        given={**OF_EXAMPLES, **{name: f"`{name}`" for name in ("dtype", "remat", "unroll")}},
    ),
    Part("objective", "What is minimised.", table=recipe.OBJECTIVES, given=OF_EXAMPLES, hidden=("model",)),
    Part("data", "The training set, and how it is read.", target=DataSpec),
    Part("data.source", "Where examples come from.", table=SOURCES, given=OF_DATA | OF_IMAGES),
    Part(
        "data (text)",
        "The training set of a language model, in place of the above: chosen by the kind of its source.",
        target=TextSpec,
    ),
    Part(
        "data.source (text)",
        "Where text comes from.",
        table=TEXT_SOURCES,
        given={"tokenizer": "`data.tokenizer`", "length": "`data.length`"},
    ),
    Part(
        "data (prompts)",
        "The training set of a language model that learns completions: chosen by the kind of its source.",
        target=PromptSpec,
    ),
    Part(
        "data.source (prompts)",
        "Where prompts and completions come from.",
        table=PROMPT_SOURCES,
        given={"tokenizer": "`data.tokenizer`", "length": "`data.length`"},
    ),
    Part(
        "data (pairs)",
        "The training set of an encoder-decoder: chosen by the kind of its source.",
        target=PairSpec,
    ),
    Part(
        "data.source (pairs)",
        "Where texts and their translations come from.",
        table=PAIR_SOURCES,
        given={"tokenizer": "`data.tokenizer`", "length": "`data.length`"},
    ),
    Part(
        "data (documents)",
        "The training set of a masked language model: chosen by the kind of its source.",
        target=DocumentSpec,
    ),
    Part(
        "data.source (documents)",
        "Where documents of sentences come from.",
        table=DOCUMENT_SOURCES,
        given={"tokenizer": "`data.tokenizer`", "length": "`data.length`"},
    ),
    Part(
        "data (labelled texts)",
        "The training set of a classifier of text: chosen by the kind of its source.",
        target=LabelledTextSpec,
    ),
    Part(
        "data.source (labelled texts)",
        "Where texts, or pairs of them, and their labels come from.",
        table=LABELLED_TEXT_SOURCES,
        given=OF_CLASSES,
    ),
    Part(
        "data (questions)",
        "The training set of a model that answers questions: chosen by the kind of its source.",
        target=QuestionSpec,
    ),
    Part(
        "data.source (questions)",
        "Where questions, contexts and answers come from.",
        table=QUESTION_SOURCES,
        given={"tokenizer": "`data.tokenizer`", "length": "`data.length`"},
    ),
    Part("data.tokenizer", "Text to token ids.", table=TOKENIZERS),
    Part(
        "data.ops",
        "A tuple of ops on one image, in order; `--config.data.ops.0.size=64` reaches into it.",
        table=OPS,
        given={"size": "`data.image_size`", "channels": "`data.channels`"},
    ),
    Part(
        "evaluators",
        "Name -> evaluator. Each has `every` (a duration, one epoch if left out) and `data` (fields of `data` that "
        "differ from the training set's; not shuffled).",
        table=recipe.EVALUATORS,
        hidden=("name", "pipeline"),
    ),
    Part("optimizer", "How parameters move.", table=OPTIMIZERS),
    Part("schedule", "The learning rate by step, as a share of `optimizer.lr`.", table=SCHEDULES),
    Part("duration", f"Length of the run. {UNITS}; setting one clears the others. `fraction` has no meaning here."),
    Part("accumulate", "Microbatches a step (whole number, default 1). The result is that of the whole batch."),
    Part("mesh", "Devices by axis; the product is the number of devices.", target=MeshSpec),
    Part("rules", "Logical axis of a parameter or activation -> mesh axis, a list of them, or None for whole."),
    Part("remat", "What the backward pass computes again (default `none`)."),
    Part("unroll", "Blocks in a Python loop (True, the default) or in a scan (False): compile time against speed."),
    Part("dtype", f"Compute dtype: {', '.join(f'`{d}`' for d in recipe.DTYPES)} (default `auto`)."),
    Part("init_from", "Warm start; a text alone is its `checkpoint`.", target=recipe.InitFrom),
    Part("checkpoint", "When to save.", target=recipe.CheckpointSpec),
    Part("log", "When to write metrics.", target=recipe.LogSpec),
    Part("seed", "Of initialisation, order, augmentation and dropout (whole number, default 0)."),
    Part(
        "chip",
        "Numbers in place of the chip table's, for plans and the ledger. All are optional.",
        target=Chip,
        given={f.name: "the table's" for f in dataclasses.fields(Chip)},
    ),
    Part(
        "paper", "What it reproduces: `paper`, `row`, `expected`, `core_days`. Plain data that training does not use."
    ),
)


def describe(target: Any) -> tuple[str, dict[str, str]]:
    """A docstring's text without its sections, and its attributes (or arguments), inherited ones included."""
    doc = inspect.getdoc(target) or ""
    text = [p for p in re.split(r"\n\s*\n", doc) if not re.match(r"(Attributes|Args|Raises|Returns):\n", p)]
    attributes: dict[str, str] = {}
    for cls in reversed(getattr(target, "__mro__", (target,))):
        attributes |= _attributes(inspect.cleandoc(cls.__doc__ or ""))
    return "\n\n".join(" ".join(p.split()) for p in text), attributes


def _attributes(doc: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in doc.splitlines():
        if re.fullmatch(r"(Attributes|Args):", line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (match := re.fullmatch(r"  (\w[\w, ]*|\*\*\w+): (.*)", line)):
            names = [n.strip(" *") for n in match[1].split(",")]
            found |= dict.fromkeys(names, match[2])
        elif inside and line.strip():
            found |= {n: f"{found[n]} {line.strip()}" for n in names}
    return found


def spell_type(hint: Any) -> str:
    """A type as a reader would write it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(spell_type(a) for a in inner)
    if origin is Literal:
        return " | ".join(repr(a) for a in inner)
    if hint is type(None):
        return "None"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "fields"
    if origin is not None:
        shown = ", ".join("..." if a is ... else spell_type(a) for a in inner)
        return f"{origin.__name__}[{shown}]"
    return "any" if hint is Any else getattr(hint, "__name__", str(hint))


@dataclasses.dataclass(frozen=True)
class Field:
    """One row of a table."""

    name: str
    type: str
    default: str
    text: str

    def row(self) -> str:
        return "| " + " | ".join((f"`{self.name}`", _code(self.type), self.default, _cell(self.text))) + " |"


def fields(target: Any, part: Part) -> list[Field]:
    """The fields of a constructor that a recipe may set."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    made = {f.name: f for f in dataclasses.fields(target)} if dataclasses.is_dataclass(target) else {}
    texts = describe(target)[1]
    found = []
    for name, parameter in fields_of(target).items():
        if name in part.hidden:
            continue
        default = parameter.default
        if name in made and made[name].default_factory is not dataclasses.MISSING:
            default = made[name].default_factory()  # type: ignore[misc]
        shown = "needed" if default is parameter.empty else _code(repr(default))
        shown = part.given.get(name, shown)
        found.append(Field(name, spell_type(hints.get(name, Any)), shown, texts.get(name, "")))
    return found


def recipe_lines() -> Iterator[str]:
    """``recipe.md``."""
    missing = set(recipe.TOP_LEVEL) - {p.path for p in PARTS}
    if missing:
        raise SystemExit(f"make_reference.py: PARTS lacks {', '.join(sorted(missing))}, which recipe.TOP_LEVEL has.")
    yield from (MADE, "", "# Recipe fields", "")
    yield (
        "A recipe has the parts below; "
        + ", ".join(f"`{n}`" for n in recipe.REQUIRED)
        + " must be there. Any field is set on the command line by its path: `--config.optimizer.lr=3e-4`."
    )
    yield f"{UNITS}; `epochs` are of the training set, `fraction` is of the run."
    yield ""
    yield from (f"- [`{p.path}`](#{re.sub('[.()]', '', p.path).replace(' ', '-')}): {p.about}" for p in PARTS)
    for part in PARTS:
        yield from ("", f"## {part.path}", "", part.about)
        if part.table is not None:
            yield from _kinds(part)
        elif part.target is not None:
            yield from ("", *_table(fields(part.target, part)))
        elif part.path == "rules":
            yield from ("", "| logical axis | mesh axis |", "|---|---|")
            yield from (f"| `{name}` | {_code(repr(axes))} |" for name, axes in DEFAULT_RULES.items())
        elif part.path == "remat":
            yield from ("", "One of " + ", ".join(f"`{name}`" for name in REMAT_POLICIES) + ".")
    yield ""


def _kinds(part: Part) -> Iterator[str]:
    assert part.table is not None
    kinds = {kind: fields(target, part) for kind, target in sorted(part.table.items())}
    shared: list[Field] = []
    if len(kinds) > 1:
        first, *_ = kinds.values()
        for f in first:
            rows = [
                g for found in kinds.values() for g in found if (g.name, g.type, g.text) == (f.name, f.type, f.text)
            ]
            if len(rows) == len(kinds):
                usual = collections.Counter(g.default for g in rows).most_common(1)[0][0]
                shared.append(dataclasses.replace(f, default=usual))
    if shared:
        yield from ("", f"Fields of every `{part.path}.kind`:", "", *_table(shared))
    for kind, found in kinds.items():
        own = [f for f in found if f not in shared]
        text = describe(part.table[kind])[0]
        yield from ("", f"### {part.path}: {kind}", "", _markdown(text))
        if own:
            yield from ("", *_table(own))


def _table(found: Sequence[Field]) -> Iterator[str]:
    yield from ("| field | type | default | |", "|---|---|---|---|")
    yield from (f.row() for f in found)


def _code(text: str) -> str:
    """Code in a cell."""
    return "`" + text.replace("|", "\\|") + "`"


def _cell(text: str) -> str:
    """Docstring text in a cell."""
    return _markdown(text).replace("|", "\\|")


def _markdown(text: str) -> str:
    """Docstring text: outside of code, stars, underscores and angle brackets are meant as they are."""
    parts = text.replace("``", "`").split("`")
    parts[::2] = [p.replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_") for p in parts[::2]]
    return "`".join(parts)


def verbs_lines() -> Iterator[str]:
    """``verbs.md``."""
    whole = arguments.parser()
    yield from (MADE, "", "# Verbs", "", f"{whole.description} {_markdown(whole.epilog or '')}", "")
    yield "Results go to stdout, everything else to stderr. Exit codes:"
    yield ""
    yield from ("| code | meaning |", "|---|---|")
    for code, text in (
        (errors.EXIT_DONE, "done"),
        (errors.EXIT_FAILED, "failed: the run cannot go on (NaN, full disk), or a check found something"),
        (errors.EXIT_BAD_INPUT, "bad input; the message says how to mend it"),
        (errors.EXIT_RESTART, "saved after SIGTERM; the same command goes on"),
        (errors.EXIT_INTERRUPTED, "saved after Ctrl-C; the same command goes on"),
    ):
        yield f"| {code} | {text} |"
    yield from _verbs(whole)
    yield ""


def _verbs(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from ("", f"## {verb.prog}", "", _sentence(verb.description or ""))
                yield from _arguments(verb)
                yield from _verbs(verb)


def _arguments(verb: argparse.ArgumentParser) -> Iterator[str]:
    rows = []
    for action in verb._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
        value = value if isinstance(value, str) else " ".join(value)
        many = " ..." if action.nargs in ("+", "*") else ""
        name = ", ".join(f"{o} {value}".strip() for o in action.option_strings) or value
        optional = action.nargs in ("?", "*") if not action.option_strings else not action.required
        text = action.help or ""
        if optional and action.default not in (None, False, [], argparse.SUPPRESS) and "default" not in text:
            text += f" (default {action.default})" if action.nargs != 0 else ""
        rows.append(f"| {_code(name + many)} | {'' if optional else 'needed'} | {_cell(text.strip())} |")
    if rows:
        yield from ("", "| argument | | |", "|---|---|---|", *rows)


def _sentence(text: str) -> str:
    return text[:1].upper() + _markdown(text[1:]) + "."


def made() -> dict[pathlib.Path, str]:
    """File -> text, of everything that this writes."""
    return {
        TARGET / "recipe.md": "\n".join(recipe_lines()),
        TARGET / "verbs.md": "\n".join(verbs_lines()),
    }


if __name__ == "__main__":
    if pathlib.Path(vitax.__file__).resolve().parents[1] != ROOT:
        raise SystemExit(f"make_reference.py: {vitax.__file__} is of another clone; set PYTHONPATH={ROOT}.")
    for path, text in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
