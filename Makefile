# Everything from a clean checkout: `make up` runs the stack, `make test` runs every check.
# Nothing is changed outside this folder and FLOW_HOME (default ~/.flowapp).

PYTHON ?= python3
PROFILE ?=
FILE ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup fetch preflight up test lint format chaos bench clean

help:
	@echo "make up [PROFILE=realistic|active|firehose] [FILE=path]   run the stack and watch packets; Ctrl-C ends it"
	@echo "make test [ARGS=...]    lint, types and every test (ARGS go to pytest)"
	@echo "make lint | format      ruff and mypy | ruff's formatting"
	@echo "make chaos [ARGS=...]   the long crash test"
	@echo "make bench [ARGS=...]   measure this machine"
	@echo "make setup              only install and download what the others need"
	@echo "make clean              remove the virtual environment and caches (not FLOW_HOME)"
	@echo "PYTHON=python3.12 names the interpreter for all of them"

up: fetch
	@$(BIN)/flow up $(if $(PROFILE),--profile '$(PROFILE)') $(if $(FILE),--file '$(FILE)')

test: lint fetch
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: fetch
	$(BIN)/python -m tests.chaos $(ARGS)

bench: fetch
	$(BIN)/flow bench $(ARGS)

setup: fetch

# Components of the embedded stack, once, with progress; without a network this says what is missing.
fetch: $(STAMP)
	@$(BIN)/python -m flowapp.embedded.download

preflight:
	@command -v '$(PYTHON)' >/dev/null 2>&1 || { echo "missing: $(PYTHON) was not found; needed: Python 3.11 or later. Install it, or name one: make up PYTHON=/path/to/python3.12" >&2; exit 1; }
	@'$(PYTHON)' flowapp/embedded/preflight.py

$(STAMP): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory preflight
	@echo "installing Python packages into $(VENV) (once; 1 to 3 minutes)"
	@'$(PYTHON)' -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -c constraints.txt -e '.[embedded,dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
