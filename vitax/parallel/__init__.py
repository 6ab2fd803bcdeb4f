"""Meshes, sharding rules and hosts (jax.distributed). Imports core alone."""
