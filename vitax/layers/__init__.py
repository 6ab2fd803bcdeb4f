"""Attention, blocks, embeddings: the only place where logical axis names appear. Imports core alone.

Names on parameters and activations (their meaning on a mesh is a table in
``vitax.parallel.rules``): ``batch``, ``tokens``, ``embed`` (width), ``mlp`` (hidden
width), ``heads``, ``head_dim``, ``classes``, ``pre_logits``, ``patch_height``,
``patch_width``, ``channels``.
"""
