"""Small data sets that ship with the package; licences in NOTICE.txt, made by scripts/make_embedded_data.py."""
