# Needs make and Python 3.11 or newer; everything else goes into .venv.
#   make demo      tune a small CNN on the digits, on an embedded PostgreSQL
#   make install   install tuner and what its developers need
#   make test      the tests; some of them: make test PYTEST="-x tests/spec"
#   make lint      format, style, types, directions of imports
#   make check     what CI runs: lint, then test
#   make chaos     the chaos suite in its full form, which takes half an hour (`make test` runs its short form)
#   make clean     remove all that was made here; studies stay, they are in TUNER_HOME

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'

# The first interpreter that is new enough; to say it yourself: make PYTHON=/path/to/python3.13
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python $(NEW_ENOUGH) 2>/dev/null && echo $$python && break; done)
PYTEST ?=
FIGURES ?= chaos.jsonl

.PHONY: help install demo test lint check chaos clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

install: $(INSTALLED_DEV)

demo: $(INSTALLED)
	$(BIN)/tuner launch search_spaces/digits_cnn.yaml

test: $(INSTALLED_DEV)
	$(BIN)/pytest $(PYTEST)

lint: $(INSTALLED_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(INSTALLED_DEV)
	$(BIN)/pytest tests/chaos --chaos full --chaos-figures $(FIGURES) $(PYTEST)

check:
	$(MAKE) lint
	$(MAKE) test

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(INSTALLED) $@

$(BIN)/pip:
	@test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) || { echo \
		"tuner needs Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
