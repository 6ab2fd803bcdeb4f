"""What a family of models says of its weight files: arrays -> model, images, and how it is made to fit."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names.layout import Constants, Layout

Size = tuple[int, int]


class Shaped(NamedTuple):
    """What arrays under our names make.

    Attributes:
      variables: our name -> array, put as our model has it; names of other collections
        than parameters begin with theirs: ``batch_stats/stem/norm/mean``.
      model: constructor fields, with ``kind``.
      image_size: (height, width); None for text.
      channels: of the images; 0 for text.
      lines: what was put elsewhere or assumed.
      grid: (rows, columns) of patches, where there are positions.
    """

    variables: Mapping[str, np.ndarray]
    model: Mapping[str, Any]
    image_size: Size | None
    channels: int
    lines: tuple[str, ...] = ()
    grid: Size | None = None


def _none(layout: Layout, file: WeightFile, constants: Constants) -> tuple[Mapping[str, int], list[str]]:
    return {}, []


class Family(NamedTuple):
    """The functions of one family.

    Attributes:
      shape: layout, constants, arrays under our names, (height, width) to try -> ``Shaped``.
      recipe: file, constants, ``Shaped`` -> a recipe that evaluates, and a line on what it takes.
      architecture: constructor fields that two models of the same weights have in common.
      numerics: others that change what given weights compute.
      sizes: numbers that rules need and shapes do not have, and lines that say whence.
    """

    shape: Callable[[Any, Constants, Mapping[str, np.ndarray], Size | None], Shaped]
    recipe: Callable[[WeightFile, Constants, Shaped], tuple[dict[str, Any], str]]
    architecture: tuple[str, ...]
    numerics: tuple[str, ...]
    sizes: Callable[[Any, WeightFile, Constants], tuple[Mapping[str, int], list[str]]] = _none
