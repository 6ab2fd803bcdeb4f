"""What a published layout is, and which one a file has."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vitax.checkpoint import convert
from vitax.checkpoint.convert import Rule
from vitax.checkpoint.files import WeightFile
from vitax.core.errors import UserError

Gelu = Literal["tanh", "erf"]
# What torch libraries call the activations that our models have.
ACTIVATIONS: Mapping[str, Gelu] = {
    "gelu": "erf",
    "gelu_tanh": "tanh",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class Constants:
    """What a layout implies beside its arrays.

    Attributes:
      model: constructor fields that shapes do not say, such as ``norm_eps``.
      mean: subtracted from pixels in [0, 1].
      std: divides after that.
      resize: op that makes an image of ``image_size``, or of a larger size to crop from.
      crop: side of the image over the side that it is resized to; None squashes the whole
        image, whatever its aspect ratio.
      image_size: (height, width) where something states it.
      class_names: likewise.
      notes: where the numbers come from, and what is assumed.
    """

    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    resize: str = "bilinear"
    crop: float | None = None
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def ops(self, size: tuple[int, int]) -> tuple[dict[str, Any], ...]:
        """Image ops of an evaluation at this size."""
        if self.crop is None or size[0] != size[1]:
            return {"kind": "decode"}, {"kind": "resize", "method": self.resize}
        smaller = int(min(size) / self.crop + 1e-6)
        return (
            {"kind": "decode"},
            {"kind": "resize_small", "smaller": smaller, "method": self.resize},
            {"kind": "central_crop"},
        )


def _as_they_are(file: WeightFile) -> Mapping[str, str]:
    return {}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A published layout.

    Attributes:
      name: short, for ``--to`` and messages.
      title: for people.
      family: of the models that it holds: ``vit``, ``bit`` or ``efficientnet``.
      required: patterns of names that must all be there, and that tell it from the others.
      table: rules.
      constants: of a file in this layout.
      rename: names in a file -> those that the table has, where no pattern can hold them.
      left_out: regular expression of names that vitax has no use for -> why.
      absent: name that must not be there, where that alone tells two layouts apart.
    """

    name: str
    title: str
    family: str
    required: tuple[str, ...]
    table: tuple[Rule, ...]
    constants: Callable[[WeightFile], Constants]
    rename: Callable[[WeightFile], Mapping[str, str]] = _as_they_are
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    absent: str | None = None

    def fits(self, names: Sequence[str]) -> bool:
        """Whether a file with these names has this layout."""
        regexes = [convert.Pattern(text).regex() for text in self.required]
        return all(any(r.fullmatch(n) for n in names) for r in regexes) and self.absent not in names


@dataclasses.dataclass(frozen=True)
class VitLayout(Layout):
    """A layout of ViTs and their hybrids.

    Attributes:
      width: name of an array whose last axis is the width, where heads are not in the shapes.
      positions: method of ``resample_positions`` that its own program uses.
      patches: likewise of ``resample_kernel``.
      cls_slot: whether position tables begin with slots of the tokens in front, always
        (True), never (False), or as the number of patches says (None).
      norm_after_pool: whether the last norm comes after pooling.
    """

    width: str | None = None
    positions: str = "corner_linear"
    patches: str = "bilinear"
    cls_slot: bool | None = True
    norm_after_pool: bool = False


def recognise(layouts: Sequence[Layout], file: WeightFile) -> Layout:
    """The layout of a file.

    Raises:
      UserError: none fits; names the nearest and the first names that it does not know.
    """
    names = list(file.arrays)
    for layout in layouts:
        if layout.fits(names):
            return layout
    _point_to_a_part(layouts, file)
    nearest = max(layouts, key=lambda layout: len(convert.matched(layout.table, names)))
    known = convert.matched(nearest.table, names)
    unknown = [name for name in names if name not in known]
    regexes = [(text, convert.Pattern(text).regex()) for text in nearest.required]
    lacking = [text for text, r in regexes if not any(r.fullmatch(n) for n in names)]
    shown = "\n  ".join(f"{name} {list(np.shape(file.arrays[name]))}" for name in unknown[:8]) or "(none)"
    wanted = f", and wants {', '.join(lacking)}" if lacking else ""
    nearest_is = f"The nearest is {nearest.title}: it has {len(known)} of the {len(names)} names{wanted}."
    raise UserError(
        f"{file.path}: no layout that vitax knows. {nearest_is if known else 'No layout has any of its names.'} "
        f"Unknown names:\n  {shown}\n"
        f"Known layouts: {', '.join(dict.fromkeys(layout.title for layout in layouts))}."
    )


def _point_to_a_part(layouts: Sequence[Layout], file: WeightFile) -> None:
    """Raises where a layout fits the names below a prefix, such as that of a backbone."""
    starts = (name[: m.end()] for name in file.arrays for m in itertools.islice(re.finditer("[./]", name), 3))
    for prefix, shared in collections.Counter(starts).items():
        below = [name.removeprefix(prefix) for name in file.arrays if name.startswith(prefix)]
        fitting = next((layout for layout in layouts if shared > 1 and layout.fits(below)), None)
        if fitting is not None:
            raise UserError(
                f"{file.path}: {shared} of its {len(file.arrays)} names are those of {fitting.title} with "
                f'"{prefix}" in front. Name that part: {file.path}:{file.root}{prefix[:-1]}'
            )


def left_out(layout: Layout, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Unexpected names as (lines that say why some are of no use, those that nothing explains)."""
    lines, rest = [], list(names)
    for pattern, why in layout.left_out.items():
        hits = [n for n in rest if re.search(pattern, n)]
        if hits:
            lines.append(f"{', '.join(hits[:3])}{f' and {len(hits) - 3} more' if len(hits) > 3 else ''}: {why}")
            rest = [n for n in rest if n not in hits]
    return lines, rest
