"""A checkpoint of a language model -> text that continues prompts, or that translates sources."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

from vitax import infer
from vitax.core.errors import UserError
from vitax.generate.beam import BEAMS, LENGTH_PENALTY, BeamSearch
from vitax.generate.decoding import Decoder, Why
from vitax.generate.on_mesh import model_of
from vitax.generate.sampling import Sampling
from vitax.generate.translator import Translator

MAX_TOKENS = 200
_STOPPED: dict[Why, str] = {"ended": "end_of_document", "limit": "max_tokens", "context": "context"}


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      prompts: texts to continue; an empty one starts a document.
      sources: texts to translate, for an encoder-decoder; instead of prompts.
      sampling: how tokens are drawn; None for the default, and for beam search.
      beams: candidates of a beam search; None draws, or takes ``BEAMS`` for an encoder-decoder.
      length_penalty: alpha of ``generate.beam.penalty``; None for ``LENGTH_PENALTY``.
      max_tokens: the longest continuation; None for ``MAX_TOKENS``, or 50 more than the source.
      stop: texts before which a continuation ends.
      seed: of the draws; None for 0.
    """

    prompts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    sampling: Sampling | None = None
    beams: int | None = None
    length_penalty: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def check(self, stream: bool = False) -> None:
        """Finds what does not go together.

        Raises:
          UserError: says which.
        """
        if self.prompts and self.sources:
            raise UserError("--prompt is for language models, --source for encoder-decoders: give one of them.")
        searched = self.beams is not None or bool(self.sources)
        if self.sampling is not None:
            self.sampling.check()
        if searched and (self.sampling is not None or self.seed is not None):
            what = "--source" if self.beams is None else "--beam"
            raise UserError(
                f"{what}: the likeliest text is searched for; leave out temperature, top-k and top-p, and the seed."
            )
        if self.length_penalty is not None and not searched:
            raise UserError("--length-penalty: of a search for the likeliest text; give --beam N, or leave it out.")
        if "" in self.stop:
            raise UserError("--stop: an empty text would stop everything.")
        if stream and (searched or len(self.prompts) > 1):
            raise UserError("--stream: shows one prompt as it is continued; no beam search, no source, no second one.")


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
      "step"}``, of a beam search with ``score``; ``tokens`` is how many make ``text``, and
      ``stopped`` is ``end_of_document``, ``stop``, ``max_tokens`` (given, or the default) or
      ``context``. A blank source gives an empty text, with ``stopped`` ``blank`` and no score.

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
    translator = Translator(model, tokenizer, request.beams or BEAMS, _length_penalty(request))
    found = iter(translator(variables, [source for source in request.sources if source.strip()], request.max_tokens))
    rows = []
    for source in request.sources:
        if not source.strip():
            rows.append({"source": source, "text": "", "tokens": 0, "stopped": "blank", "score": None})
            continue
        made = next(found)
        rows.append({"source": source, **_ended(tokenizer, made.tokens, made.why, request), "score": made.score})
    return rows


def _continue(
    request: Request, program: Any, tokenizer: Any, variables: Any, emit: Callable[[str], None] | None
) -> list[dict[str, Any]]:
    model = model_of(program, tokenizer.end_of_document)
    prompts = request.prompts or ("",)
    # Every document begins with the mark, as in training.
    tokens = [[model.end, *tokenizer.encode(prompt.encode()).tolist()] for prompt in prompts]
    most = request.max_tokens or MAX_TOKENS
    watch = _Watch(tokenizer, request.stop, emit)
    made: Any
    try:
        if request.beams is not None:
            made = BeamSearch(model, request.beams)(variables, tokens, most, _length_penalty(request))
        else:
            looks = watch if request.stop or emit else None
            made = Decoder(model)(variables, tokens, most, request.sampling or Sampling(), request.seed or 0, looks)
    except UserError as error:
        raise UserError(f"--prompt: {error}") from error
    rows = []
    one: Any
    for prompt, one in zip(prompts, made):
        row = {"prompt": prompt, **_ended(tokenizer, one.tokens, one.why, request)}
        rows.append(row if request.beams is None else row | {"score": one.score})
    if emit is not None:
        watch.show(rows[0]["text"])
    return rows


def _length_penalty(request: Request) -> float:
    return LENGTH_PENALTY if request.length_penalty is None else request.length_penalty


def _ended(tokenizer: Any, tokens: Sequence[int], why: Why, request: Request) -> dict[str, Any]:
    """``text, tokens, stopped`` of what was made, cut at the first stop."""
    text, cut = _cut(_text(tokenizer, tokens), request.stop)
    if not cut:
        return {"text": text, "tokens": len(tokens), "stopped": _STOPPED[why]}
    shown = next(n for n in range(len(tokens) + 1) if _text(tokenizer, tokens[:n]).startswith(text))
    return {"text": text, "tokens": shown, "stopped": "stop"}


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return tokenizer.decode(tokens).decode(errors="replace")


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
        cut = [_cut(_text(self.tokenizer, row), self.stop) for row in rows]
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
