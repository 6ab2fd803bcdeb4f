"""The ledger that a run left in its workdir: read and priced."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitax.core.errors import UserError
from vitax.cost import ledger
from vitax.train.workdir import read_json


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
        raise UserError(f"--workdir {workdir}: no ledger.json there; is it the folder of a run?")
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
