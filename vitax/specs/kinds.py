"""Which kind of ``data`` a source decides, and which models, objectives and evaluators go with it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vitax.construct import call
from vitax.core.errors import UserError
from vitax.data.documents import DOCUMENT_SOURCES
from vitax.data.labelled_text import LABELLED_TEXT_SOURCES
from vitax.data.prompts import PROMPT_SOURCES
from vitax.data.sources import SOURCES
from vitax.data.squad import QUESTION_SOURCES
from vitax.data.text_sources import PAIR_SOURCES, TEXT_SOURCES
from vitax.specs.documents import DocumentSpec
from vitax.specs.images import DataSpec
from vitax.specs.labelled_text import LabelledTextSpec
from vitax.specs.pairs import PairSpec
from vitax.specs.prompts import PromptSpec
from vitax.specs.questions import QuestionSpec
from vitax.specs.text import TextSpec


class Kind(NamedTuple):
    """A kind of data.

    Attributes:
      spec: the class of ``data``.
      what: the word for it in messages.
      sources: kinds of ``data.source`` that decide on it.
      model: kinds of model that take it.
      objective: kinds of objective that do.
      evaluators: kinds of evaluator that do.
    """

    spec: Any
    what: str
    sources: Mapping[str, Any]
    model: tuple[str, ...]
    objective: tuple[str, ...]
    evaluators: tuple[str, ...]


IMAGES = Kind(
    DataSpec,
    "images",
    SOURCES,
    # All that no kind of text names: a new model of images needs no line here.
    (),
    (),
    (),
)
TEXT = Kind(TextSpec, "text", TEXT_SOURCES, ("gpt",), ("language_model",), ("language",))
PAIRS = Kind(PairSpec, "pairs of texts", PAIR_SOURCES, ("transformer",), ("translation",), ("language", "bleu"))
PROMPTS = Kind(PromptSpec, "prompts", PROMPT_SOURCES, ("gpt",), ("language_model",), ("language",))
DOCUMENTS = Kind(
    DocumentSpec,
    "masked documents",
    DOCUMENT_SOURCES,
    ("bert",),
    ("masked_language_model",),
    ("masked_language",),
)
LABELLED_TEXT = Kind(
    LabelledTextSpec,
    "labelled texts",
    LABELLED_TEXT_SOURCES,
    ("bert",),
    ("text_classification",),
    ("text_classification",),
)
QUESTIONS = Kind(QuestionSpec, "questions", QUESTION_SOURCES, ("bert",), ("span",), ("span",))
KINDS = (TEXT, PAIRS, PROMPTS, DOCUMENTS, LABELLED_TEXT, QUESTIONS, IMAGES)


def kind_of(data: Any) -> Kind:
    """The kind that ``data.source.kind`` decides; images where it says nothing known."""
    source = data.get("source") if isinstance(data, Mapping) else None
    name = source.get("kind") if isinstance(source, Mapping) else None
    return next((kind for kind in KINDS if name in kind.sources), IMAGES)


def build(data: Any, where: str = "data") -> Any:
    """``data`` of a recipe as the class of its kind."""
    return call(kind_of(data).spec, data, where)


def evaluator_data(config: Mapping[str, Any], name: str) -> Any:
    """``data`` of an evaluator, completed from the recipe's own."""
    where = f"evaluators.{name}.data"
    own = dict(config["evaluators"][name].get("data") or {})
    base = config["data"]
    cls = kind_of(base).spec
    # The draw of masks is that of one seed, or losses of runs with different ones would not compare.
    fixed = {"seed": 0} if cls is DocumentSpec else {}
    merged = {k: base[k] for k in cls.SHARED if k in base} | {"shuffle": False} | fixed | own
    return call(cls, merged, where)


def check(config: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses parts that do not take the data of a recipe.

    Args:
      config: the recipe as plain data.
      tables: kind -> class for ``model``, ``objective`` and ``evaluators``.

    Raises:
      UserError: such a part.
    """
    data = kind_of(config["data"])
    stated = [(part, part, config[part].get("kind")) for part in ("model", "objective")]
    for name, spec in (config.get("evaluators") or {}).items():
        stated.append(("evaluators", f"evaluators.{name}", spec.get("kind", "classification")))
    for part, where, kind in stated:
        others = {name for other in KINDS for name in getattr(other, part)}
        fitting = getattr(data, part) or [name for name in tables[part] if name not in others]
        if kind in tables[part] and kind not in fitting:
            raise UserError(
                f'{where}.kind: "{kind}" does not take {data.what}, which data.source.kind '
                f'"{config["data"]["source"].get("kind")}" gives. Kinds that do: {", ".join(fitting)}.'
            )
