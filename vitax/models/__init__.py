"""One model family a file, published sizes as tables. Imports core and layers."""
