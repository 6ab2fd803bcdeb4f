"""BERT by the names in Hugging Face's files.

Reference: files of transformers 5.23.0, model ``bert``. Kernels are stored outputs
first; the output layer of masked tokens is the table of tokens, and has no array of its
own but in old files.
"""

import re
from collections.abc import Callable, Mapping

from vitax.checkpoint.convert import Rule
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import language, preparation
from vitax.checkpoint.names.layout import Constants, Layout
from vitax.checkpoint.names.timm import HEADS_OUT, dense, heads, norm

_OURS = "encoder/block_{i:02}"
# Heads, wherever the encoder's names begin.
_HEADS = (
    *dense("mlm/dense", "cls.predictions.transform.dense"),
    *norm("mlm/norm", "cls.predictions.transform.LayerNorm"),
    Rule("mlm/bias", "cls.predictions.bias"),
    *dense("next_sentence", "cls.seq_relationship"),
)


def table(prefix: str, head: str = "classifier") -> tuple[Rule, ...]:
    """The rules.

    Args:
      prefix: of the encoder's names: ``bert.`` or nothing.
      head: name of the layer that is ``head`` here: ``classifier`` or ``qa_outputs``.
    """
    theirs, parts = f"{prefix}encoder.layer.{{i}}", ("query", "key", "value")
    attention = [rule for p in parts for rule in heads(f"{_OURS}/attention/{p}", f"{theirs}.attention.self.{p}")]
    words = {"token": "word", "position": "position", "type": "token_type"}
    return (
        *(Rule(f"embedding/{o}", f"{prefix}embeddings.{t}_embeddings.weight") for o, t in words.items()),
        *norm("embedding_norm", f"{prefix}embeddings.LayerNorm"),
        *attention,
        *dense(f"{_OURS}/attention/out", f"{theirs}.attention.output.dense", HEADS_OUT),
        *norm(f"{_OURS}/norm_1", f"{theirs}.attention.output.LayerNorm"),
        *dense(f"{_OURS}/mlp/in", f"{theirs}.intermediate.dense"),
        *dense(f"{_OURS}/mlp/out", f"{theirs}.output.dense"),
        *norm(f"{_OURS}/norm_2", f"{theirs}.output.LayerNorm"),
        *dense("pooler", f"{prefix}pooler.dense"),
        *_HEADS,
        *dense("head", head),
    )


# Settings of ``config.json`` that our BERT has not -> the value that says so.
_EXPECTED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
# The only one of those with a classifier whose outputs are classes of a text.
_CLASSIFIER = "BertForSequenceClassification"
_LEFT_OUT = {
    r"position_ids$": "counts from 0, which is done here",
    r"^cls\.predictions\.decoder\.weight$": "the table of tokens again",
    r"^cls\.predictions\.decoder\.bias$": "cls.predictions.bias again",
}


def _rename(file: WeightFile) -> Mapping[str, str]:
    """Old files call the parameters of norms as TensorFlow did."""
    new = {"gamma": "weight", "beta": "bias"}
    return {
        name: f"{match[1]}.{new[match[2]]}"
        for name in file.arrays
        if (match := re.fullmatch(r"(.*LayerNorm)\.(gamma|beta)", name))
    }


def _constants(prefix: str) -> Callable[[WeightFile], Constants]:
    def constants(file: WeightFile) -> Constants:
        language.check(file, "bert", _EXPECTED, f"{prefix}embeddings.word_embeddings.weight")
        if "classifier.weight" in file.arrays:
            _check_classifier(file)
        return language.constants(file, {}, "num_attention_heads", "layer_norm_eps", 1e-12, "exact GELU")

    return constants


def _check_classifier(file: WeightFile) -> None:
    """Refuses classifiers of tokens or choices, which have the same names, and of labels beside each other."""
    named, problem = file.config.get("architectures") or [_CLASSIFIER], file.config.get("problem_type")
    if _CLASSIFIER not in named:
        raise preparation.refuse(
            file, f"architectures: {', '.join(named)}", f"of models with a classifier vitax has {_CLASSIFIER} alone"
        )
    if problem == "multi_label_classification":
        raise preparation.refuse(file, f"problem_type: {problem}", "vitax has classes of which a text has one")
    if problem == "regression" and len(file.arrays["classifier.weight"]) > 1:
        raise preparation.refuse(file, f"problem_type: {problem}", "vitax has regression of one value alone")


def _layout(prefix: str, title: str, head: str, *required: str) -> Layout:
    words, query = "embeddings.word_embeddings.weight", "encoder.layer.{i}.attention.self.query.weight"
    return Layout(
        name="hf_bert",
        title=title,
        family="bert",
        required=(
            f"{prefix}{words}",
            f"{prefix}{query}",
            f"{prefix}embeddings.token_type_embeddings.weight",
            *required,
        ),
        table=table(prefix, head),
        constants=_constants(prefix),
        rename=_rename,
        left_out=_LEFT_OUT,
    )


SPAN = _layout("bert.", "Hugging Face BERT for questions", "qa_outputs", "qa_outputs.weight")
BERT = _layout("bert.", "Hugging Face BERT", "classifier")
MODEL = _layout("", "Hugging Face BERT (without a head)", "classifier")
LAYOUTS = (SPAN, BERT, MODEL)
