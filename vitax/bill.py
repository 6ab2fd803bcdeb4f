"""The ledger that a run left in its workdir: read, priced, drawn for the report."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitax.core.errors import UserError
from vitax.cost import ledger, statement
from vitax.train.workdir import beside, read_json

# Green is what one wants, red is thrown away; apart in brightness too.
_COLOURS = {
    "productive": "#2e9e5b",
    "evaluation": "#7cc6e0",
    "checkpoint": "#4a7fc1",
    "compile": "#8e6bbf",
    "startup": "#b9a3d9",
    "restart": "#e0c36a",
    "data_wait": "#e8924a",
    "lost": "#cf4446",
}


def read(workdir: Path, usd_per_hour: Sequence[str] = ()) -> dict[str, Any]:
    """The ledger of a workdir.

    Args:
      workdir: of a run.
      usd_per_hour: prices of a chip-hour, ``USD`` or ``KIND=USD``.

    Raises:
      UserError: there is none, or a price is not one.
    """
    account = read_json(workdir / "ledger.json")
    if account is None:
        raise UserError(f"--workdir {workdir}: no ledger.json there; is it the folder of a run?{beside(workdir)}")
    if "by_device_kind" not in account:
        raise UserError(f"{workdir}/ledger.json is of an older vitax. Train on in this workdir to renew it.")
    return ledger.priced(account, prices(usd_per_hour, list(account["by_device_kind"]))) if usd_per_hour else account


def prices(words: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    """``["cpu=1.2"]`` -> ``{"cpu": 1.2}``; the kind may be left out where there is only one.

    Raises:
      UserError: an unknown kind, or not a price.
    """
    found = {}
    for word in words:
        kind, sign, text = word.rpartition("=")
        if not sign and len(kinds) > 1:
            raise UserError(f"--usd-per-hour {word}: of which device kind? Write KIND={word} for {_or(kinds)}.")
        kind = kind if sign else kinds[0]
        if kind not in kinds:
            raise UserError(f"--usd-per-hour {word}: no such device kind in the run, which used {_or(kinds)}.")
        try:
            found[kind] = float(text)
        except ValueError:
            found[kind] = math.nan
        if not 0 <= found[kind] < math.inf:
            raise UserError(f"--usd-per-hour {word}: expected dollars an hour of a chip, e.g. 1.20 or KIND=1.20.")
    return found


def _or(kinds: Sequence[str]) -> str:
    return " or ".join(f'"{kind}"' for kind in kinds)


def section(account: Mapping[str, Any]) -> str:
    """The ledger as HTML: a bar of the parts of the wall time, their table, the figures."""
    shown = [part for part in statement.parts(account) if part[1]]
    bar = "".join(
        f'<span title="{name} {fraction:.1%}" style="flex: {fraction:.6f}; background: {_COLOURS[name]}"></span>'
        for name, _, fraction in sorted(shown, key=lambda part: list(_COLOURS).index(part[0]))
    )
    table = "".join(
        f'<tr><td><span class="dot" style="background: {_COLOURS[name]}"></span>{name.replace("_", " ")}</td>'
        f"<td>{statement.duration(seconds)}</td><td>{fraction:.1%}</td></tr>"
        for name, seconds, fraction in shown
    )
    figures = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in statement.rows(account)
    )
    return f'<div class="bar">{bar}</div>\n<table class="parts">{table}</table>\n<table>{figures}</table>'
