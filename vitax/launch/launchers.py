"""The launchers by name."""

from collections.abc import Callable

from vitax.launch import local
from vitax.launch.settings import Settings

LAUNCHERS: dict[str, Callable[[Settings], int]] = {
    "local": local.launch,
}
