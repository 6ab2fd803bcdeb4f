"""Sources, ops and the step-indexed pipeline: NumPy on the host, no device code. Imports core alone."""
