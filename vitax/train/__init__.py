"""The program (init and step) and the loop; knows no concrete model, objective or evaluator.

Imports core, parallel, optim, data, checkpoint and cost.
"""
