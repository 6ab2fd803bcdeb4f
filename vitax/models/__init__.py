"""Models: one family a file, published sizes as tables with their source.

``vitax.models.table`` holds the names; this file imports nothing, so that sizes
can be read without JAX.
"""
