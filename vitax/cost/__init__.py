"""Chips, FLOPs and the ledger. Imports core alone."""
