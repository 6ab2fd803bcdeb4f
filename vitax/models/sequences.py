"""What models of token sequences check alike."""

from vitax.core.errors import UserError


def check_heads(width: int, num_heads: int) -> None:
    """Raises a UserError where the heads do not divide the width."""
    if width % num_heads:
        raise UserError(f"model: width {width} does not divide into {num_heads} heads.")


def check_tokens(shape: tuple[int, ...], context: int, name: str = "tokens") -> None:
    """Raises a UserError for what is not [B, T], or is longer than the model's positions."""
    if len(shape) != 2:
        raise UserError(f"{name}: expected [batch, length], got shape {tuple(shape)}.")
    if shape[1] > context:
        raise UserError(
            f"{name}: {shape[1]} in a sequence, but the model has {context} positions (model.context). "
            "Shorten the sequences (data.length), or set model.context."
        )
