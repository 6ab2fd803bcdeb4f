"""Weight files of other programs, read as checkpoints and written: published layouts, what their shapes imply, and
models that start from them. May import everything but the verbs.
"""
