"""A checkpoint of a language model -> text that continues prompts, or that translates sources."""

import dataclasses
import os.path
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from vitax import infer
from vitax.core.errors import UserError
from vitax.generate.beam import BeamSearch
from vitax.generate.decoding import Decoder
from vitax.generate.on_mesh import model_of
from vitax.generate.sampling import Sampling
from vitax.generate.translator import Translator

TRANSLATION_BEAMS = 4


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      prompts: texts to continue; an empty one starts a document.
      sources: texts to translate, for an encoder-decoder; instead of prompts.
      sampling: how tokens are drawn; None for the default, and for beam search.
      beams: candidates of a beam search; None draws, or takes 4 for an encoder-decoder.
      length_penalty: alpha of ``generate.beam.penalty``.
      max_tokens: the longest continuation; None for 200, or 50 more than the source.
      stop: texts before which a continuation ends.
      seed: of the draws.
    """

    prompts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    sampling: Sampling | None = None
    beams: int | None = None
    length_penalty: float = 0.6
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0

    def check(self, stream: bool = False) -> None:
        """Finds what does not go together.

        Raises:
          UserError: says which.
        """
        if self.prompts and self.sources:
            raise UserError("--prompt is for language models, --source for encoder-decoders: give one of them.")
        if self.sampling is not None:
            self.sampling.checked()
            if self.beams is not None or self.sources:
                what = "--source" if self.beams is None else "--beam"
                raise UserError(f"{what}: the likeliest text is searched for; leave out temperature, top-k and top-p.")
        if "" in self.stop:
            raise UserError("--stop: an empty text would stop everything.")
        if stream and (self.beams is not None or self.sources or len(self.prompts) > 1):
            raise UserError("--stream: shows one prompt as it is continued; no beam search, no source, no second one.")


def texts_of(given: str) -> tuple[str, ...]:
    """The lines of the file that a text names, or else the text itself.

    Raises:
      UserError: a file that is no text.
    """
    if not os.path.isfile(given):
        return (given,)
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{given}: cannot be read as UTF-8 text ({error}).") from error
    found = tuple(line for line in lines if line.strip())
    if not found:
        raise UserError(f"{given}: holds no text.")
    return found


def generate(
    checkpoint: str,
    request: Request,
    overrides: Sequence[str] = (),
    emit: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Continues prompts, or translates sources.

    Args:
      checkpoint: ``DIR``, ``DIR@STEP`` or a published weight file.
      request: what is asked for.
      overrides: ``--config.path=value`` over the recipe that the checkpoint carries.
      emit: is given the text of the one prompt piece by piece as it is made.

    Returns:
      A row for each prompt or source: ``{"prompt" | "source", "text", "tokens", "stopped",
      "step"}``, of a beam search with ``score``; ``stopped`` is ``end_of_document``,
      ``stop``, ``max_tokens`` or ``context``.

    Raises:
      UserError: a model of images, or what does not fit the model.
    """
    request.check(stream=emit is not None)
    recipe, program, state, metadata = infer.load(checkpoint, overrides)
    kind, objective = recipe.config["model"]["kind"], cast(Any, program.objective)
    if recipe.data.size is not None:
        raise UserError(f"{checkpoint}: the model takes images and gives no text; vitax predict classifies them.")
    if not hasattr(objective.model, "decode"):
        raise UserError(f'{checkpoint}: a model of kind "{kind}" gives no text; vitax predict says what it can do.')
    tokenizer = recipe.data.build_tokenizer()
    variables = {"params": state.params}
    if kind == "transformer":
        rows = _translate(checkpoint, request, program, tokenizer, variables)
    elif request.sources:
        raise UserError(f'{checkpoint}: a model of kind "{kind}" continues texts; give --prompt instead of --source.')
    else:
        rows = _continue(request, program, tokenizer, variables, emit)
    return [{**row, "step": metadata["step"]} for row in rows]


def _translate(checkpoint: str, request: Request, program: Any, tokenizer: Any, variables: Any) -> list[dict[str, Any]]:
    if not request.sources:
        raise UserError(f"{checkpoint}: an encoder-decoder translates; give --source TEXT (or a file) instead.")
    model = model_of(program, tokenizer.end_of_document)
    translator = Translator(model, tokenizer, request.beams or TRANSLATION_BEAMS, request.length_penalty)
    rows = []
    for source, made in zip(request.sources, translator(variables, request.sources, request.max_tokens)):
        text, stopped = _cut(made.text, request.stop)
        why = "stop" if stopped else "end_of_document" if made.ended else "max_tokens"
        rows.append({"source": source, "text": text, "tokens": made.tokens, "stopped": why, "score": made.score})
    return rows


def _continue(
    request: Request, program: Any, tokenizer: Any, variables: Any, emit: Callable[[str], None] | None
) -> list[dict[str, Any]]:
    model = model_of(program, tokenizer.end_of_document)
    prompts = request.prompts or ("",)
    # Every document begins with the mark, as in training.
    tokens = [[model.end, *tokenizer.encode(prompt.encode()).tolist()] for prompt in prompts]
    most = request.max_tokens or 200
    scores: list[float] | None = None
    watch = _Watch(tokenizer, request.stop, emit)
    if request.beams is not None:
        best = BeamSearch(model, request.beams)(variables, tokens, most, request.length_penalty)
        made, scores = [one.tokens for one in best], [one.score for one in best]
    else:
        looks = watch if request.stop or emit else None
        made = Decoder(model)(variables, tokens, most, request.sampling or Sampling(), request.seed, looks)
    rows = []
    for i, (prompt, before, after) in enumerate(zip(prompts, tokens, made)):
        text, stopped = _cut(tokenizer.decode(after).decode(errors="replace"), request.stop)
        full = "context" if len(before) + len(after) == model.context else "end_of_document"
        why = "stop" if stopped else "max_tokens" if len(after) == most else full
        row: dict[str, Any] = {"prompt": prompt, "text": text, "tokens": len(after), "stopped": why}
        rows.append(row if scores is None else row | {"score": scores[i]})
    if emit is not None:
        watch.show(rows[0]["text"])
    return rows


def _cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of the stops, and whether there is one."""
    found = [at for at in map(text.find, stop) if at >= 0]
    return (text[: min(found)], True) if found else (text, False)


class _Watch:
    """Looks at continuations as they grow: stops them, and shows the first."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], emit: Callable[[str], None] | None):
        self.tokenizer, self.stop, self.emit = tokenizer, stop, emit
        self.shown = 0

    def __call__(self, rows: list[list[int]]) -> list[bool]:
        texts = [self.tokenizer.decode(row).decode(errors="replace") for row in rows]
        cut = [_cut(text, self.stop) for text in texts]
        if self.emit is not None:
            text, stopped = cut[0]
            # Not yet what may be half a letter, or the beginning of a stop.
            held = max([1, *map(len, self.stop)])
            self.show(text if stopped else text.rstrip("\ufffd")[: max(len(text) - held, 0)])
        return [stopped for _, stopped in cut]

    def show(self, text: str) -> None:
        """Gives away what of a text has not been shown."""
        assert self.emit is not None
        if len(text) > self.shown:
            self.emit(text[self.shown :])
            self.shown = len(text)
