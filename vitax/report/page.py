"""A page of HTML that needs nothing else: its style, its tables, its figures."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STYLE = """
:root { color-scheme: light dark; --card: #f5f5f2; --line: #d8d8d2; }
@media (prefers-color-scheme: dark) { :root { --card: #24262a; --line: #3b3e44; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
nav { font-size: .9rem; } nav a { margin-right: 1rem; white-space: nowrap; }
table { border-collapse: collapse; } td, th { padding: .15rem 1.2rem .15rem 0; vertical-align: top; text-align: left; }
td { overflow-wrap: anywhere; } td:first-child { font-weight: 600; min-width: 9rem; }
img { max-width: 100%; background: #fff; border-radius: 6px; padding: 6px; box-sizing: border-box; }
figure { margin: .6rem 0; } figcaption { font-size: .88rem; opacity: .8; }
pre { background: var(--card); padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: 13px; }
.bar { display: flex; height: 22px; border-radius: 6px; overflow: hidden; margin: .8rem 0; }
.parts td { padding-right: 1.6rem; } .parts td + td { text-align: right; font-variant-numeric: tabular-nums; }
.dot { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .5em; }
@media print {
  body { max-width: none; } nav { display: none; } h2 { break-after: avoid; } img, tr { break-inside: avoid; }
  .bar, .dot { print-color-adjust: exact; }
}
"""

# Title and HTML of a part of the page.
Section = tuple[str, str]


def page(title: str, sections: Sequence[Section]) -> str:
    """The document: a heading, links to the sections, the sections."""
    links = "\n".join(f'<a href="#s{i}">{html.escape(name)}</a>' for i, (name, _) in enumerate(sections))
    body = "\n".join(f'<h2 id="s{i}">{html.escape(name)}</h2>\n{text}' for i, (name, text) in enumerate(sections))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>\n<nav>{links}</nav>\n{body}</body></html>\n"
    )


def rows(values: Mapping[str, Any]) -> str:
    """A table of names and values."""
    cells = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{cells}</table>"


def table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    """A table with a heading."""
    top = "".join(f"<th>{html.escape(str(h))}</th>" for h in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in line) + "</tr>" for line in body)
    return f"<table><tr>{top}</tr>{lines}</table>"


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure, in inches, by the object interface: no global state, no display, safe in threads."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def figure(drawn: Any, path: Path, caption: str, note: str = "") -> str:
    """Saves a figure as PNG and gives it as HTML with the image inside.

    Args:
      drawn: a matplotlib figure.
      path: where the PNG goes.
      caption: what it shows, for those who cannot see it too.
      note: a line under it.
    """
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=100)
    path.write_bytes(buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    under = f"<figcaption>{html.escape(note)}</figcaption>" if note else ""
    return f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">{under}</figure>'


def pixels(image: np.ndarray) -> np.ndarray:
    """Any image [H, W, C] -> [0, 1] for display, one range for all channels; [H, W] where there is one channel."""
    image = np.asarray(image, np.float32)
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-6)).squeeze()


def gallery(axes: Any, images: Iterable[np.ndarray], titles: Sequence[str]) -> None:
    """Draws images into a grid of axes, one title each; the rest of the grid stays empty."""
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, image, title in zip(np.ravel(axes), images, titles):
        axis.imshow(pixels(image), cmap="gray")
        axis.set_title(title, fontsize=7)
