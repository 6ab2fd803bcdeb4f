"""What verbs share: one answer, as JSON or as lines."""

import argparse
import json
from typing import Any


def show(args: argparse.Namespace, value: Any, lines: list[str]) -> None:
    """Prints a value with --json, and lines without."""
    print(json.dumps(value) if args.json else "\n".join(lines))


def on_the_host() -> None:
    """Keeps JAX off accelerators, which may be busy with a run."""
    import jax

    jax.config.update("jax_platforms", "cpu")
