"""The recipes: one file, one published number. Installed as `vitax.configs`."""
