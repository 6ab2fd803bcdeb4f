"""The types that everything speaks: batches, means, durations, named trees.

Imports nothing else of vitax; every other package may import it.
"""
