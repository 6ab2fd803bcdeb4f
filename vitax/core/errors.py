"""Errors that a user can act on, and "did you mean" for names."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_RESTART = 75  # EX_TEMPFAIL: saved, and wants to be started again
EXIT_INTERRUPTED = 130  # 128 + SIGINT, saved


class UserError(Exception):
    """Bad input: the message says what, where, what was expected and how to mend it.

    The command line prints the message alone (no traceback) and exits with 2.
    """


class RunError(Exception):
    """A run that cannot go on (NaN, full disk): printed alone, exit code 1."""


def suggest(name: str, choices: Iterable[str], limit: int = 3) -> str:
    """Returns `` Did you mean "x"?`` for the nearest choices, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=limit, cutoff=0.5)
    if not close:
        return ""
    return " Did you mean " + " or ".join(f'"{c}"' for c in close) + "?"


def pick(table: Mapping[str, T], name: str, what: str) -> T:
    """Looks ``name`` up in an explicit table.

    Args:
      table: name -> thing.
      name: the wanted name.
      what: what the names are and where it was asked for, e.g. ``"model.kind"``.

    Raises:
      UserError: names the valid choices and the nearest.
    """
    if name in table:
        return table[name]
    raise UserError(f'{what}: unknown name "{name}".{suggest(str(name), table)} Valid: {", ".join(sorted(table))}.')
