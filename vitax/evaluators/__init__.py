"""Exact evaluation of a state on a data source. Imports core, parallel, data, objectives and train."""
