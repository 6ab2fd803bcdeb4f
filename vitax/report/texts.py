"""What a model of text writes and where it is surprised: samples, surprise by token, translations."""

import html
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vitax.core import axes
from vitax.core.types import TrainState
from vitax.generate.beam import BEAMS, LENGTH_PENALTY
from vitax.generate.decoding import Decoder
from vitax.generate.on_mesh import model_of
from vitax.generate.sampling import Sampling
from vitax.generate.translator import Translator
from vitax.recipe import Recipe
from vitax.report import page
from vitax.report.page import Section
from vitax.train.program import Program

_SAMPLES, _SAMPLE_TOKENS = 3, 250
_TRANSLATIONS = 8
# A sentence whose attention is drawn has at most so many tokens.
_DRAWN_TOKENS = 30
# Nats at which the colour of a token is full: a guess among 400.
_FULL = 6.0


def sections(recipe: Recipe, program: Program, state: TrainState, figures: Path) -> Iterator[Section]:
    """Sections of a language model or an encoder-decoder; nothing for others.

    Args:
      recipe, program, state: of the checkpoint.
      figures: folder for the PNGs.
    """
    kind = recipe.config["model"]["kind"]
    if kind not in ("gpt", "transformer"):
        return
    places = [f"evaluators.{name}.data" for name in recipe.config.get("evaluators") or {}] or ["data"]
    source: Any = recipe.source(places[0])
    if kind == "gpt":
        yield "Samples", _samples(program, source.tokenizer, state.params)
        yield "Surprise", _surprise(program, source, state.params, held_out=places[0] != "data")
    elif hasattr(source, "pairs"):
        yield "Translations", _translations(program, source, state.params)
        yield "Where a translation looks", _attention(program, source, state.params, figures)


def _samples(program: Program, tokenizer: Any, params: Any) -> str:
    model = model_of(program, tokenizer.end_of_document)
    sampling = Sampling(temperature=0.8, top_p=0.95)
    starts = [[model.end]] * _SAMPLES
    made = Decoder(model)({"params": params}, starts, min(_SAMPLE_TOKENS, model.context - 1), sampling)
    texts = [tokenizer.decode(one.tokens).decode(errors="replace") for one in made]
    shown = "".join(f"<pre>{html.escape(text)}</pre>" for text in texts)
    return f"<p>Documents begun by the model itself: temperature 0.8, top-p 0.95.</p>{shown}"


def _surprise(program: Program, source: Any, params: Any, held_out: bool) -> str:
    """A window with each token coloured by how little it was expected."""
    # Behind the first window, which may hold titles and lists.
    window = source.gather(np.array([min(3, len(source) - 1)]))
    ways = program.rules.batch_ways(program.mesh)
    batch = {name: np.repeat(values, ways, axis=0) for name, values in window.items()}
    batch |= {"mask": np.ones(ways, bool), "index": np.zeros(ways, np.int32)}

    @jax.jit
    def look(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        objective: Any = program.objective
        with axes.resolving(program.rules.resolver(program.mesh)):
            logits = objective.forward({"params": params}, batch).logits
        log_p = jax.nn.log_softmax(logits)
        picked = jax.numpy.take_along_axis(log_p, batch["targets"][..., None], -1)[..., 0]
        return -picked, logits.argmax(-1)

    nats, guesses = (np.asarray(x)[0] for x in jax.device_get(look(params, batch)))
    tokenizer = source.tokenizer

    def text_of(token: int) -> str:
        return tokenizer.decode([int(token)]).decode(errors="replace") or "\u2016"

    spans = []
    for target, loss, guess, real in zip(window["targets"][0], nats, guesses, window["segment_ids"][0] > 0):
        if real:
            about = html.escape(f"{loss / math.log(2):.1f} bits; likeliest: {text_of(guess)!r}", quote=True)
            colour = f"background:rgba(230,120,30,{min(float(loss) / _FULL, 1.0):.2f})"
            spans.append(f'<span title="{about}" style="{colour}">{html.escape(text_of(target))}</span>')
    what = "Held-out text" if held_out else "Text that the model was trained on"
    note = f"<p>{what}, each token the darker the less it was expected; its bits are in the tooltip.</p>"
    return f'{note}<pre style="white-space:pre-wrap">{"".join(spans)}</pre>'


def _translations(program: Program, source: Any, params: Any) -> str:
    model = model_of(program, source.tokenizer.end_of_document)
    fitting = ((s, r) for s, r in zip(*source.pairs) if len(source.tokenizer.encode(s.encode())) < model.context)
    pairs = list(itertools.islice(fitting, _TRANSLATIONS))
    if not pairs:
        return "<p>No sentence is short enough to translate.</p>"
    made = Translator(model, source.tokenizer)({"params": params}, [s for s, _ in pairs])
    rows = [(s, one.text + ("" if one.why == "ended" else " \u2026"), r) for (s, r), one in zip(pairs, made)]
    note = f"<p>{BEAMS} beams, length penalty {LENGTH_PENALTY}.</p>"
    return note + page.table(("source", "translation", "reference"), rows)


def _attention(program: Program, source: Any, params: Any, figures: Path) -> str:
    """Cross-attention of the last block, the mean over heads, of a short sentence and its reference."""
    tokenizer = source.tokenizer
    sides = [[tokenizer.encode(text.encode()).tolist() for text in side[:200]] for side in source.pairs]
    objective: Any = program.objective
    most = min(_DRAWN_TOKENS, objective.model.context)
    fitting = [i for i in range(len(sides[0])) if max(len(side[i]) for side in sides) < most]
    if not fitting:
        return "<p>No sentence is short enough to draw.</p>"
    mark = tokenizer.end_of_document
    words = [*sides[0][fitting[0]], mark]
    targets = [*sides[1][fitting[0]], mark]
    ways = program.rules.batch_ways(program.mesh)

    @jax.jit
    def look(params: Any, source: Any, tokens: Any) -> dict[str, jax.Array]:
        with axes.resolving(program.rules.resolver(program.mesh)):
            return objective.model.apply({"params": params}, source, tokens, return_attention=True).intermediates

    inputs = (np.array([row] * ways, np.int32) for row in (words, [mark, *targets[:-1]]))
    seen = jax.device_get(look(params, *inputs))
    last = np.asarray(seen[max(name for name in seen if name.startswith("cross_attention"))])[0].mean(0)
    labels = [[tokenizer.decode([t]).decode(errors="replace") or "end" for t in row] for row in (words, targets)]
    drawn = page.new_figure(1.5 + 0.32 * len(words), 1.3 + 0.26 * len(targets))
    axis = drawn.subplots()
    axis.imshow(last, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(words)), labels[0], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(targets)), labels[1], fontsize=8)
    axis.set(xlabel="source", ylabel="the next token of the translation")
    note = "Cross-attention of the last block, heads averaged, while the reference is predicted token by token."
    return page.figure(drawn, figures / "cross_attention.png", "Cross-attention of one sentence", note)
