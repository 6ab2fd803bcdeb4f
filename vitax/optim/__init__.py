"""Schedules and optimisers: plain specs -> optax. Imports core alone."""
