"""A checkpoint of a language model -> text that continues a prompt."""

import functools
from collections.abc import Sequence
from typing import Any

from vitax import infer
from vitax.core import axes
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.generate.decoding import Decoder, Model
from vitax.generate.sampling import Sampling


def decoder_of(program: Any, end: int) -> Decoder:
    """A ``Decoder`` of a program's language model, on its mesh."""
    module = program.objective.model

    def decode(variables: Any, *arguments: Any) -> ModelOutput:
        with axes.resolving(program.rules.resolver(program.mesh)):
            return module.apply(variables, *arguments, method="decode")

    return Decoder(Model(decode, functools.partial(module.empty_cache), module.context, end))


def generate(
    checkpoint: str,
    prompt: str,
    sampling: Sampling,
    max_tokens: int = 200,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Continues a prompt.

    Args:
      checkpoint: ``DIR`` or ``DIR@STEP``.
      prompt: text; empty starts a document.
      sampling: how tokens are drawn.
      max_tokens: the longest continuation.
      seed: of the draws.
      overrides: ``--config.path=value`` over the recipe that the checkpoint carries.

    Returns:
      ``{"prompt", "text", "tokens", "stopped", "step"}``; ``stopped`` is ``end_of_document``,
      ``max_tokens`` or ``context``.

    Raises:
      UserError: a model of images, or a prompt that does not fit.
    """
    sampling.checked()
    recipe, program, state, metadata = infer.load(checkpoint, overrides)
    if recipe.data.size is not None:
        raise UserError(f"{checkpoint}: the model takes images and gives no text; vitax predict classifies them.")
    tokenizer = recipe.data.build_tokenizer()
    # Every document begins with the mark, as in training.
    tokens = [tokenizer.end_of_document, *tokenizer.encode(prompt.encode()).tolist()]
    decoder = decoder_of(program, tokenizer.end_of_document)
    [made] = decoder({"params": state.params}, [tokens], max_tokens, sampling, seed)
    full = "context" if len(tokens) + len(made) == decoder.model.context else "end_of_document"
    return {
        "prompt": prompt,
        "text": tokenizer.decode(made).decode(errors="replace"),
        "tokens": len(made),
        "stopped": "max_tokens" if len(made) == max_tokens else full,
        "step": metadata["step"],
    }
