"""Losses and tasks: arrays -> loss. Imports core, layers and models."""
