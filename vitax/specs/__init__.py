"""``data`` of a recipe: one class for each kind of data, and the table that says which source has which.

May import core, data and construct. No file is opened and no device touched before a source is built.
"""
