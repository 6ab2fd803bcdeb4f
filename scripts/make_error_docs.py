"""Writes docs/errors.md: runs the commands of tests/user_errors.py and keeps what they print.

``python -m scripts.make_error_docs`` from the clone; tests/test_error_messages.py compares.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import user_errors

ROOT = Path(__file__).parent.parent

HEAD = """# What vitax says when something is wrong

Each message says what is wrong, where (a flag, or the dotted path in the recipe), what was expected and how to mend
it, and where a name is unknown the nearest ones. The exit code is 2 and no device was started: JAX is imported only
where the check needs the model.

"Others" is what timm, transformers (HF) and JAX with its libraries print for the same mistake, where that was measured.
What stands under a command of vitax is its literal output, written by `python -m scripts.make_error_docs` and compared
by a test. The commands run in `/home/me`, which holds `photos/` (two classes of 40 x 40 px images) and workdirs in
`runs/`.

"""


def printed() -> dict[str, dict[str, Any]]:
    """Title -> what its command did, all in one fresh process on the CPU."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "tests" / "user_errors.py"), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page, in Markdown."""
    rows = [HEAD, "| error | found | others |\n|---|---|---|\n"]
    for row in user_errors.ROWS:
        link = "".join(c for c in row.title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
        rows.append(f"| [{row.title}](#{link}) | {row.found} | {row.others} |\n")
    for row in user_errors.ROWS:
        start = ">>> " if isinstance(row.show, str) else "$ "
        command = row.command.replace("\n", f"\n{start}")
        others = f"Others: {row.others}\n\n" if row.others else ""
        rows.append(f"\n## {row.title}\n\n{others}```text\n{start}{command}\n")
        rows.append(f"{results[row.title]['message']}\n```\n")
    return "".join(rows)


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(page(printed()))
