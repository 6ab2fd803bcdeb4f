"""A program's model as decoding takes it, sharded as the program's rules say."""

from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from vitax.core import axes
from vitax.core.types import ModelOutput
from vitax.generate.decoding import Model


def model_of(program: Any, end: int) -> Model:
    """``Model`` of a program's language model or encoder-decoder, on its mesh.

    Args:
      program: a ``train.program.Program``.
      end: the token that ends a text.
    """
    module = program.objective.model

    def decode(variables: Any, *arguments: Any, **options: Any) -> ModelOutput:
        with axes.resolving(program.rules.resolver(program.mesh)):
            return module.apply(variables, *arguments, method="decode", **options)

    return Model(decode, module.empty_cache, module.context, end, NamedSharding(program.mesh, PartitionSpec()))
