"""Names and constants of published layouts: one table of rules a family, read both ways."""
