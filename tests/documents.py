"""What the tests of the documentation share: its files, commands, code and headings, and a small machine."""

import re
import shlex
from pathlib import Path

import jax

from vitax import recipe, report
from vitax.parallel.mesh import build_mesh

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = [*WRITTEN, ROOT / "CHANGELOG.md", *sorted(REFERENCE.glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """The words of every command in the ``sh`` blocks, comments left out."""
    found = []
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            found += [words] if words else []
    return found


def anchors(path: Path) -> set[str]:
    """What a link may name after ``#``: the headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def on_one_device(patch):
    """As on a laptop: the tests' 8 devices make small things slow. Reports have a command of their own."""
    patch.setattr(recipe, "build_mesh", lambda spec: build_mesh(spec, jax.devices()[:1]))
    patch.setattr(report, "write_after_run", lambda workdir: None)
