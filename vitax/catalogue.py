"""What there is: recipes, published models. Plain rows and lines."""

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any

from vitax import config_files
from vitax.core import elsewhere
from vitax.core.errors import UserError, suggest


def recipes(pattern: str = "*") -> list[dict[str, Any]]:
    """Rows ``name, variant, paper, row, expected, core_days`` of all recipes and their listed variants."""
    rows = []
    for name in config_files.names():
        loaded = config_files.module(name)
        for variant in getattr(loaded, "VARIANTS", ("",)):
            paper = (loaded.get_config(variant) if variant else loaded.get_config()).to_dict().get("paper") or {}
            rows.append(
                {
                    "name": name,
                    "variant": variant or None,
                    "paper": paper.get("paper"),
                    "row": paper.get("row"),
                    "expected": paper.get("expected"),
                    "core_days": paper.get("core_days"),
                }
            )
    found = [r for r in rows if fnmatch.fnmatch(_spell(r), pattern) or fnmatch.fnmatch(r["name"], pattern)]
    if not found:
        names = config_files.names()
        raise UserError(f'No recipe matches "{pattern}".{suggest(pattern, names)} There are: {", ".join(names)}.')
    return found


def _spell(row: dict[str, Any]) -> str:
    return f"{row['name']}:{row['variant']}" if row["variant"] else row["name"]


def recipe_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A table for a person."""
    width = max((len(_spell(r)) for r in rows), default=0)
    lines = []
    for row in rows:
        expected = ", ".join(f"{k} {v}" for k, v in (row["expected"] or {}).items())
        days = f"{row['core_days']} TPUv3-core-days" if row["core_days"] else ""
        lines.append("  ".join([_spell(row).ljust(width), row["row"] or "", expected, days]).rstrip())
    return lines


def models(pattern: str = "*") -> Iterator[dict[str, Any]]:
    """Rows ``name, parameters, gmacs, tokens, image_size`` at the size each is made for; images with 1000 classes.

    One by one: a large network takes seconds to count.
    """
    from vitax.models import table

    published = list(table.published())
    names = [n for n in published if fnmatch.fnmatch(n, pattern)]
    if not names:
        hint = suggest(elsewhere.model(pattern), published)
        raise UserError(f'No model matches "{pattern}".{hint} There are: {", ".join(published)}.')
    return map(table.summary, names)


def model_lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A table for a person, line by line."""
    yield f"{'model':<16}{'parameters':>16}{'GMACs':>10}{'tokens':>8}{'px':>6}"
    for r in rows:
        sizes = f"{r['tokens'] or '-':>8}{r['image_size'] or '-':>6}"
        yield f"{r['name']:<16}{r['parameters']:>16,}{r['gmacs']:>10.2f}{sizes}"
