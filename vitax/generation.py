"""A checkpoint of a language model -> text that continues a prompt."""

from collections.abc import Sequence
from typing import Any

from vitax import infer
from vitax.core.errors import UserError
from vitax.generate.decoding import Decoder
from vitax.generate.on_mesh import model_of
from vitax.generate.sampling import Sampling


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
      checkpoint: ``DIR``, ``DIR@STEP`` or a published weight file.
      prompt: text; empty starts a document.
      sampling: how tokens are drawn.
      max_tokens: the longest continuation.
      seed: of the draws.
      overrides: ``--config.path=value`` over the recipe that the checkpoint carries.

    Returns:
      ``{"prompt", "text", "tokens", "stopped", "step"}``; ``stopped`` is ``end_of_document``,
      ``max_tokens`` or ``context``.

    Raises:
      UserError: a model that gives no text, or a prompt that does not fit.
    """
    sampling.checked()
    recipe, program, state, metadata = infer.load(checkpoint, overrides)
    if recipe.data.size is not None:
        raise UserError(f"{checkpoint}: the model takes images and gives no text; vitax predict classifies them.")
    if recipe.config["model"]["kind"] == "bert":
        raise UserError(
            f"{checkpoint}: a BERT sees both sides of a token, and continues nothing; vitax predict has it."
        )
    tokenizer = recipe.data.build_tokenizer()
    # Every document begins with the mark, as in training.
    tokens = [tokenizer.end_of_document, *tokenizer.encode(prompt.encode()).tolist()]
    decoder = Decoder(model_of(program, tokenizer.end_of_document))
    [made] = decoder({"params": state.params}, [tokens], max_tokens, sampling, seed)
    full = "context" if len(tokens) + len(made) == decoder.model.context else "end_of_document"
    return {
        "prompt": prompt,
        "text": tokenizer.decode(made).decode(errors="replace"),
        "tokens": len(made),
        "stopped": "max_tokens" if len(made) == max_tokens else full,
        "step": metadata["step"],
    }
