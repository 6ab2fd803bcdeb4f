"""Attention, blocks, embeddings: the only place where logical axis names appear. Imports core alone."""
