"""Runs notebooks of colabs/ top to bottom and keeps what they show: ``python -m scripts.run_colabs [NAME.ipynb ...]``.

Kept are text on stdout and figures; what goes to stderr (progress, warnings) and other displays are not. Each notebook
runs in an empty folder, whose path must not be in what it shows. Needs the extra ``colab``.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MOST_BYTES = 400_000


def kept(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs to commit: stdout joined, figures as PNG."""
    shown: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            if shown and shown[-1]["output_type"] == "stream":
                shown[-1]["text"] += output["text"]
            else:
                shown.append({"output_type": "stream", "name": "stdout", "text": output["text"]})
        elif output["output_type"] == "display_data" and "image/png" in output["data"]:
            data = {kind: output["data"][kind] for kind in ("image/png", "text/plain") if kind in output["data"]}
            shown.append({"output_type": "display_data", "data": data, "metadata": {}})
    return shown


def run(path: Path) -> float:
    """Runs one notebook and writes it back; returns the seconds it took."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError as error:
        raise SystemExit(f"{error.name} is missing: pip install -c constraints.txt -e '.[colab]'") from error
    os.environ["PYTHONPATH"] = str(ROOT)
    notebook = nbformat.read(path, as_version=4)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
        for place in (folder, str(ROOT), str(Path.home())):
            for cell in notebook.cells:
                texts = [o.get("text", "") for o in kept(cell.get("outputs", []))]
                if any(place in text for text in texts):
                    raise SystemExit(f"{path.name} shows the path {place}:\n{cell.source}")
    seconds = time.perf_counter() - begun
    content = json.loads(nbformat.writes(notebook))
    for cell in content["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
            cell["outputs"] = [
                o | {"text": o["text"].splitlines(keepends=True)} if "text" in o else o
                for o in kept([o | ({"text": "".join(o["text"])} if "text" in o else {}) for o in cell["outputs"]])
            ]
    content["metadata"] = {
        "colab": {"provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    if len(text) > MOST_BYTES:
        raise SystemExit(f"{path.name} would have {len(text):,} bytes; show less.")
    path.write_text(text)
    return seconds


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(p.name for p in (ROOT / "colabs").glob("*.ipynb")):
        print(f"{name}: {run(ROOT / 'colabs' / name):.0f} s", flush=True)
