"""Save, verify, restore and warm start. Imports core and parallel."""
