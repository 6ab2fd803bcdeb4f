"""Texts that a command line gives: themselves, or a file that holds them."""

import os.path
from pathlib import Path

from vitax.core.errors import UserError


def is_file(given: str) -> bool:
    """Whether what is given names a file; a text, however long, names none."""
    return os.path.isfile(os.path.expanduser(given))


def read(given: str, option: str) -> str:
    """The content of the file that a text names, or else the text itself.

    Raises:
      UserError: a file that is no UTF-8 text; names the option.
    """
    if not is_file(given):
        return given
    try:
        return Path(os.path.expanduser(given)).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option} {given}: cannot be read as UTF-8 text ({error}).") from error


def lines(given: str, option: str) -> tuple[str, ...]:
    """The lines of the file that a text names, blank ones too, or else the text itself.

    Only line feeds end lines, as in parallel texts.

    Raises:
      UserError: a file that is no UTF-8 text, or holds none.
    """
    if not is_file(given):
        return (given,)
    content = read(given, option)
    if not content.strip():
        raise UserError(f"{option} {given}: holds no text.")
    return tuple(line.removesuffix("\r") for line in content.removesuffix("\n").split("\n"))
