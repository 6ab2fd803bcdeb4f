"""Memory of a train step by arithmetic alone, in no time and without a compiler.

What the formulas leave out (fusion, buffers that share memory, copies) is what the
compiler knows; measured against its own peak on TPU they are within 20% for ViT
without remat and with full remat (docs/accounting.md has the table), and rough for the
policies in between.
"""

import dataclasses
from typing import Literal

from vitax.cost.activations import Traced

# What the backward pass holds beside what it was left, in arrays of scores and of the
# MLP's hidden layer: their gradients, and one of each in flight.
_IN_FLIGHT = 2
ROUGH = ("dots", "dots_with_no_batch_dims")


@dataclasses.dataclass(frozen=True)
class Stack:
    """A stack of equal transformer blocks as one device sees it.

    Attributes:
      examples: of one microbatch on this device.
      tokens: T.
      width: D.
      depth: blocks.
      mlp_dim: M, this device's share where it is sharded.
      num_heads: N, likewise.
      head_dim: K.
      itemsize: bytes of an activation: 2 for bfloat16.
      remat: name of the policy.
      scanned: one body in a loop instead of an unrolled stack.
      kernel: of attention (``layers.kernels.KernelName``). All but ``xla`` keep scores out
        of HBM; ``pallas`` has heads side by side, which pads to nothing.
      stem: what a convolutional stem in front leaves, in bytes of one example.
      weights_dropped: dropout on the attention weights; the compiler draws its mask again for
        the backward pass, where it stands beside the scores.
    """

    examples: int
    tokens: int
    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    head_dim: int
    itemsize: int
    remat: str
    scanned: bool
    kernel: str = "xla"
    stem: int = 0
    weights_dropped: bool = False

    def _arrays(self) -> dict[str, int]:
        """Bytes of one example's arrays in one block, padded to tiles of 8 x 128."""
        t8, t128 = _up(self.tokens, 8), _up(self.tokens, 128)
        heads = self.num_heads * self.head_dim
        per_head = t128 * _up(self.head_dim, 128)
        if self.kernel == "xla":  # may lay them out as it likes
            per_head = min(t128 * _up(self.head_dim, 8), t8 * _up(self.head_dim, 128))
        return {
            "stream": t8 * self.width * self.itemsize,
            "head": (t8 * _up(heads, 128) if self.kernel == "pallas" else self.num_heads * per_head) * self.itemsize,
            "scores": self.num_heads * t8 * t128 * self.itemsize if self.kernel == "xla" else 0,
            "hidden": t8 * self.mlp_dim * self.itemsize,
        }

    def kept_bytes(self) -> int:
        """What the forward pass leaves for the backward pass: the activations."""
        a = self._arrays()
        everything = 2 * a["stream"] + 4 * a["head"] + a["scores"] + a["hidden"]
        kept = {
            "none": everything,
            "full": a["stream"],
            "dots": everything + 2 * a["stream"],
            "dots_with_no_batch_dims": 3 * a["stream"] + 3 * a["head"] + a["hidden"],
        }[self.remat]
        return self.examples * (self.depth * kept + self.stem)

    def everything_bytes(self) -> int:
        """``kept_bytes`` without remat."""
        return dataclasses.replace(self, remat="none").kept_bytes()

    def stream_bytes(self) -> int:
        """What enters the blocks, over all of them."""
        return self.examples * self.depth * self.tokens * self.width * self.itemsize

    def in_flight_bytes(self) -> int:
        """What one block's backward pass needs on top."""
        a = self._arrays()
        a["scores"] *= 2 if self.weights_dropped else 1
        again = 0 if self.remat == "none" else 2 * a["stream"] + 4 * a["head"] + a["scores"] + a["hidden"]
        return self.examples * (again + max(_IN_FLIGHT * a["scores"], _IN_FLIGHT * a["hidden"]) + 2 * a["stream"])


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The logits of a language model and their gradient as one device sees them.

    Attributes:
      targets: of one microbatch on this device.
      tokens: V, this device's share where it is sharded.
      width: D.
      itemsize: bytes of an activation.
      chunks: into which the targets are cut (``objectives.losses_chunked``).
    """

    targets: int
    tokens: int
    width: int
    itemsize: int
    chunks: int

    def in_flight_bytes(self) -> int:
        """Float32 logits of a chunk and their gradient in the compute dtype; the table and its float32 gradient."""
        logits = -(-self.targets // self.chunks) * _up(self.tokens, 128) * (4 + self.itemsize)
        return logits + self.tokens * self.width * (4 + self.itemsize)

    def again_flops(self) -> int:
        """What the backward pass makes again, in FLOPs: the logits, where they are cut."""
        return 2 * self.targets * self.tokens * self.width if self.chunks > 1 else 0


def temporary_bytes(
    stack: Stack | Traced,
    *,
    params: int,
    params_here: int,
    accumulate: int,
    input_bytes: int,
    gathered: Literal["none", "layer", "all"],
    vocabulary: Vocabulary | None = None,
) -> int:
    """Temporaries of a step on one device: activations, gradients, gathered weights.

    Args:
      stack: the layers.
      params: parameters of the model, in elements.
      params_here: of them on this device.
      accumulate: microbatches; above 1 float32 sums of gradients are kept.
      input_bytes: of a microbatch of inputs in the compute dtype.
      gathered: weights gathered from other devices (FSDP): none, a layer at a time
        (scanned), or all kept from the forward to the backward pass (unrolled).
      vocabulary: of a language model.

    Returns:
      Bytes.
    """
    size = stack.itemsize
    kept, gradients = stack.kept_bytes(), params_here * size
    held = 0
    if gathered == "all":
        held += params * size
    elif gathered == "layer":
        held += 2 * params // stack.depth * size
    if accumulate > 1:
        held += 4 * params_here
    # A loop writes all gradients into one stack and reads weights from another; unrolled,
    # activations go as gradients come.
    weights = params_here * size if stack.scanned else 0
    total = kept + gradients + weights if stack.scanned else max(kept, gradients)
    blocks = total + stack.in_flight_bytes() + 2 * input_bytes
    # The logits come when all activations are there and no gradient is yet.
    head = 0 if vocabulary is None else kept + weights + vocabulary.in_flight_bytes()
    return held + max(blocks, head)


def _up(n: int, tile: int) -> int:
    return -(-n // tile) * tile
