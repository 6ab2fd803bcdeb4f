"""vitax: train transformers with JAX, and know what a run costs.

Importing this package is cheap (no JAX): the work is in the sub-packages, and
the command line is ``vitax.__main__``. Who may import whom is a table in
``tests/test_layering.py``.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["create_model", "list_models"]


def __getattr__(name: str) -> Any:
    # JAX comes with the first use, not with the import.
    if name in __all__:
        from vitax import zoo

        return getattr(zoo, name)
    raise AttributeError(f"module 'vitax' has no attribute {name!r}")
