"""vitax: train transformers with JAX, and know what a run costs.

Importing this package is cheap (no JAX): the work is in the sub-packages, and
the command line is ``vitax.__main__``. Who may import whom is a table in
``tests/test_layering.py``.
"""

__version__ = "0.1.0"
