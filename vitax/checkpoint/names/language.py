"""What ``config.json`` of Hugging Face says of models of text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import preparation
from vitax.checkpoint.names.layout import Constants
from vitax.core.errors import UserError

# Names of output layers that must be the table of tokens again.
_OUTPUTS = ("lm_head.weight", "cls.predictions.decoder.weight")


def check(file: WeightFile, model_type: str, expected: Mapping[str, Any], words: str) -> None:
    """Refuses what our models do not compute.

    Args:
      file: the weights.
      model_type: the only one of ``config.json`` whose names and computation these are.
      expected: setting -> its value, or a tuple of all that mean the same here.
      words: name of the table of tokens.

    Raises:
      UserError: another model, another setting, or an output layer of its own.
    """
    stated = file.config.get("model_type", model_type)
    if stated != model_type:
        raise UserError(
            f'{file.path}: config.json has model_type "{stated}", whose names are those of "{model_type}" but which '
            "computes otherwise; vitax has no such model."
        )
    for name, value in expected.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if file.config.get(name, allowed[0]) not in allowed:
            means = " or ".join(map(str, allowed))
            raise preparation.refuse(file, f"{name}: {file.config[name]}", f"vitax has {means} alone")
    for name in _OUTPUTS:
        if name in file.arrays and not np.array_equal(file.arrays[name], file.arrays[words]):
            raise UserError(f"{file.path}: {name} is not {words} again; vitax has output layers that are, alone.")


def constants(
    file: WeightFile, model: Mapping[str, Any], heads: str, epsilon: str, default: float, activation: str
) -> Constants:
    """Constructor fields and class names.

    Args:
      file: the weights.
      model: fields that the layout decides.
      heads: setting that has the number of heads.
      epsilon: setting that has the epsilon of the norms.
      default: that of its class.
      activation: for people.
    """
    config = file.config
    fields = dict(model) | {"norm_eps": float(config.get(epsilon, default))}
    if heads in config:
        fields["num_heads"] = int(config[heads])
    note = (
        f"no config.json beside the file: LayerNorm epsilon {default:g} and {activation}, as its class has by default"
    )
    return Constants(
        model=fields,
        class_names=preparation.class_names(file),
        notes=(preparation.FROM_CONFIG if config else note,),
    )
