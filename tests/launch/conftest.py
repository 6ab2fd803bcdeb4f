"""Recording stand-ins for the programs of clouds and clusters."""

import json
import stat
import sys

import pytest

# Notes how it was called, and answers by a script: for the first pattern that the call holds,
# the next of its answers (the last one stays): [stdout, exit code, exit codes of the workers].
STAND_IN = """#!{python} -S
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
call = [pathlib.Path(__file__).name, *sys.argv[1:]]
with open(here / "calls.jsonl", "a") as file:
    file.write(json.dumps(call) + "\\n")
line = " ".join(call)
for pattern, answers in json.loads((here / "answers.json").read_text()):
    if pattern in line:
        seen = here / ("seen-" + str(abs(hash(pattern))))
        number = len(seen.read_text()) if seen.exists() else 0
        seen.write_text("x" * (number + 1))
        text, code, workers = answers[min(number, len(answers) - 1)]
        for flag in call:
            if flag.startswith("--output-directory="):
                for worker, its in enumerate(workers):
                    log = f"log of worker {{worker}}\\n" + ("" if its is None else f"vitax: exit code {{its}}\\n")
                    pathlib.Path(flag.partition("=")[2], f"{{worker}}.log").write_text(log)
        if text:
            print(text)
        sys.exit(code)
"""


class Programs:
    """A folder of stand-ins that is first on the PATH."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, name):
        path = self.folder / name
        path.write_text(STAND_IN.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answer(self, script):
        self.folder.joinpath("answers.json").write_text(json.dumps(script))

    @property
    def calls(self):
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # the stand-ins count by hash
    monkeypatch.chdir(tmp_path)
    found = Programs(folder)
    found.answer([])
    return found
