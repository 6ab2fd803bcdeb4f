"""``vitax predict`` of texts: a BERT fills masks, classifies, embeds, or answers from a passage, as its head can."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vitax import given_text
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.data import answers, squad
from vitax.data.labelled_text_pipeline import fitted
from vitax.text_model import Row, TextModel, mean_of_tokens

MASK = "[MASK]"
# Tokens from one window over a passage to the next, as in the authors' code.
STRIDE = 128
Rows = list[dict[str, Any]]
_FILL = "--text 'words and a [MASK].', or --text TEXT --features FILE.npz"
# Head -> what it takes.
_TAKES = {
    "pretraining": _FILL,
    "mlm": _FILL,
    "classification": "--text TEXT, for pairs with --pair TEXT",
    "span": "--question TEXT --passage TEXT|FILE",
    "none": "--text TEXT --features FILE.npz",
}


class Asked(NamedTuple):
    """What the command line says.

    Attributes:
      texts: to fill, classify or embed.
      pairs: the second sentence of each, or none at all.
      question: to answer.
      passage: where its answer is: a file, or the text itself.
      features: where embeddings go.
      topk: guesses for each.
      batch_size: texts at a time.
    """

    texts: Sequence[str] = ()
    pairs: Sequence[str] = ()
    question: str | None = None
    passage: str | None = None
    features: Path | None = None
    topk: int = 5
    batch_size: int = 64


def predict(model: TextModel, asked: Asked) -> Rows:
    """Rows for a person or a program; writes embeddings where they are asked for.

    Raises:
      UserError: not what the head of the model takes.
    """
    _check(model, asked)
    if asked.features is not None:
        return embed(model, asked)
    tasks = {"span": answer, "classification": classify, "pretraining": fill, "mlm": fill}
    return tasks[model.head](model, asked)


def _check(model: TextModel, asked: Asked) -> None:
    if asked.pairs and len(asked.pairs) != len(asked.texts):
        raise UserError(f"predict: {len(asked.texts)} --text and {len(asked.pairs)} --pair; give one --pair to each.")
    asks = asked.question is not None and asked.passage is not None
    if (asked.question is None) != (asked.passage is None):
        raise UserError("predict: --question and --passage go together.")
    if asked.features is not None:
        fits = bool(asked.texts) and not asks and not asked.pairs
    elif model.head == "span":
        fits = asks and not asked.texts
    else:
        fits = bool(asked.texts) and not asks and model.head != "none"
        fits = fits and (not asked.pairs or model.head == "classification")
    if not fits:
        raise UserError(f'{model.found.spec}: its head is "{model.head}"; expected {_TAKES[model.head]}.')


def fill(model: TextModel, asked: Asked) -> Rows:
    """``{"text", "masks": [{"topk": [{"token", "index", "probability"}]}]}`` for each text.

    Raises:
      UserError: a text without ``[MASK]``, or one that is too long.
    """
    inputs = [(model.tokenizer.encode_masked(text.encode()),) for text in asked.texts]
    # Behind [CLS].
    places = [1 + np.flatnonzero(ids == model.tokenizer.mask_id) for (ids,) in inputs]
    for text, (ids,), found in zip(asked.texts, inputs, places):
        if len(ids) + 2 > model.context:
            more = len(ids) + 2 - model.context
            raise UserError(f'--text "{_short(text)}": {more} tokens more than fit into {model.context}.')
        if not len(found):
            raise UserError(f'--text "{_short(text)}": holds no {MASK}; write it where a word is missing.')
    positions = np.zeros((len(inputs), max(map(len, places))), np.int32)
    for row, found in zip(positions, places):
        row[: len(found)] = found
    read = functools.partial(_likeliest, topk=asked.topk)
    rows = []
    for text, found, (probabilities, ids) in zip(
        asked.texts, places, model.outputs(inputs, asked.batch_size, read, positions)
    ):
        masks = [
            {"topk": [_guess("token", model.tokenizer.token(i), i, p) for i, p in zip(ids[n], probabilities[n])]}
            for n in range(len(found))
        ]
        rows.append({"text": text, "masks": masks})
    return rows


def _likeliest(output: ModelOutput, segments: Any, topk: int) -> tuple[Any, Any]:
    logits: Any = output.logits
    return jax.lax.top_k(jax.nn.softmax(logits), min(topk, logits.shape[-1]))


def classify(model: TextModel, asked: Asked) -> Rows:
    """``{"text", "pair", "topk": [{"label", "index", "probability"}]}`` for each; ``value`` for regression."""
    texts = [(text,) for text in asked.texts] if not asked.pairs else list(zip(asked.texts, asked.pairs))
    classes = model.found.fields["num_classes"]
    names = model.found.class_names or [str(i) for i in range(classes)]
    rows = []
    for text, (logits, likely) in zip(texts, model.outputs(_inputs(model, texts), asked.batch_size, _classes)):
        row: dict[str, Any] = dict(zip(("text", "pair"), text))
        if classes == 1:
            rows.append(row | {"value": float(logits[0])})
            continue
        best = np.argsort(-likely, kind="stable")[: asked.topk]
        rows.append(row | {"topk": [_guess("label", names[i], i, likely[i]) for i in best]})
    return rows


def _classes(output: ModelOutput, segments: Any) -> tuple[Any, Any]:
    logits: Any = output.logits
    return logits, jax.nn.softmax(logits)


def embed(model: TextModel, asked: Asked) -> Rows:
    """Writes ``texts`` and ``features`` float32 [N, D] as NumPy's .npz; rows with the texts most alike.

    ``{"text", "topk": [{"text", "index", "similarity"}]}``, by cosine.
    """
    assert asked.features is not None
    features = embeddings(model, asked.texts, asked.batch_size)
    with asked.features.open("wb") as file:
        np.savez(file, texts=np.array(asked.texts, str), features=features)
    alike = features @ features.T
    rows = []
    for i, text in enumerate(asked.texts):
        best = [j for j in np.argsort(-alike[i], kind="stable") if j != i][: asked.topk]
        nearest = [{"text": asked.texts[j], "index": int(j), "similarity": float(alike[i, j])} for j in best]
        rows.append({"text": text, "topk": nearest})
    return rows


def embeddings(model: TextModel, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """``mean_of_tokens`` of each text, float32 [N, D]."""
    inputs = _inputs(model, [(text,) for text in texts])
    return np.stack([one for (one,) in model.outputs(inputs, batch_size, mean_of_tokens)])


def answer(model: TextModel, asked: Asked) -> Rows:
    """``{"question", "topk": [{"answer", "start", "end", "probability"}], "no_answer"}``.

    Places are letters of the passage; ``no_answer`` is by how much the score of none is above
    that of the best answer, for models that were trained on questions without one.

    Raises:
      UserError: a passage without words, or a question that leaves it no room.
    """
    assert asked.question is not None
    passage = given_text.read(asked.passage or "", "--passage")
    question = model.encode(asked.question)
    ids, letters = model.tokenizer.encode_with_offsets(passage.encode())
    room, offset = model.context - len(question) - 3, len(question) + 2
    if not len(ids):
        raise UserError("--passage: holds no words.")
    if room < 1:
        raise UserError(f"--question: {len(question)} tokens leave no room for a passage in {model.context}.")
    windows = squad.parts(len(ids), room, min(STRIDE, max(1, room // 2)))
    rows = [(question, ids[first : first + size]) for first, size in windows]
    scores = []
    for (first, size), (logits,) in zip(
        windows, model.outputs(rows, asked.batch_size, lambda output, _: (output.logits,))
    ):
        # Answers are in the passage, or at [CLS]: there is none.
        allowed = np.r_[0, offset : offset + size]
        kept = np.full_like(logits, -np.inf)
        kept[allowed] = logits[allowed]
        scores.append(answers.Scores(kept[:, 0], kept[:, 1], first, size, offset))
    spans = answers.best_spans(scores, len(ids))
    none = answers.null_score(scores)
    likely = np.exp([span.score - spans[0].score for span in spans])
    topk = []
    for span, probability in zip(spans[: asked.topk], likely / likely.sum()):
        start, end = int(letters[span.first, 0]), int(letters[span.last, 1])
        topk.append({"answer": passage[start:end], "start": start, "end": end, "probability": float(probability)})
    return [{"question": asked.question, "topk": topk, "no_answer": none - spans[0].score if spans else None}]


def _inputs(model: TextModel, texts: Sequence[tuple[str, ...]]) -> list[Row]:
    """One input for each text or pair; says how many were cut."""
    whole = [tuple(model.encode(text) for text in one) for one in texts]
    inputs = [fitted(one, model.context) for one in whole]
    cut = sum(sum(map(len, one)) > sum(map(len, kept)) for one, kept in zip(whole, inputs))
    if cut:
        print(f"{cut} of {len(inputs)} texts are longer than {model.context} tokens, and were cut.", file=sys.stderr)
    return inputs


def _guess(what: str, name: str, index: Any, probability: Any) -> dict[str, Any]:
    return {what: name, "index": int(index), "probability": float(probability)}


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def lines(rows: Rows) -> list[str]:
    """For a person."""
    made = []
    for row in rows:
        name = " | ".join(row[key] for key in ("text", "pair", "question") if key in row)
        guesses = [mask["topk"] for mask in row["masks"]] if "masks" in row else [row.get("topk", [])]
        said = [f"{row['value']:.4f}"] if "value" in row else [", ".join(map(_said, some)) for some in guesses]
        made.append(f"{name}: {' / '.join(said)}")
    return made


def _said(guess: dict[str, Any]) -> str:
    name = next(guess[key] for key in ("token", "label", "answer", "text") if key in guess)
    return f"{name} {guess.get('probability', guess.get('similarity')):.3f}"


def run(checkpoint: str, overrides: Sequence[str], asked: Asked, form: str, output: Path | None) -> None:
    """Loads a checkpoint, predicts, and writes rows to a file or stdout.

    Args:
      checkpoint: as of ``TextModel.load``.
      overrides: likewise.
      asked: what to predict.
      form: ``text``, ``json`` (one array) or ``jsonl`` (a line each).
      output: None for stdout.
    """
    rows = predict(TextModel.load(checkpoint, overrides), asked)
    forms: dict[str, Callable[[], list[str]]] = {
        "text": lambda: lines(rows),
        "json": lambda: [json.dumps(rows)],
        "jsonl": lambda: [json.dumps(row) for row in rows],
    }
    with output.open("w", encoding="utf-8") if output else contextlib.nullcontext(sys.stdout) as stream:
        stream.writelines(f"{line}\n" for line in forms[form]())
