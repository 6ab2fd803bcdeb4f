# Two commands: `make quickstart` (the main job, from nothing) and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint fast clean

.venv/.installed: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

quickstart: .venv/.installed
	$(BIN)/vitax quickstart

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n 2

clean:
	rm -rf .venv build dist *.egg-info
