"""In which order the axes of an image lie: vitax keeps channels last."""

from collections.abc import Sequence


def channels_first(shape: Sequence[int]) -> bool:
    """Whether an image's (height, width, channels) are rather (channels, height, width): 1 or 3 in front alone."""
    return len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)
