# `make demo` and `make test` set up what they need; see CONTRIBUTING.md for the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?=

.PHONY: demo test check bench soak fuzz protocol picture clean

demo: $(VENV)/.demo
	$(BIN)/python -m sidecar.demo $(if $(HOME_DIR),"$(HOME_DIR)")

test: $(VENV)/.dev check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(SOAK_ARGS)
	$(BIN)/python -m tests.soak.requests

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

protocol: $(VENV)/.dev
	$(BIN)/python -m sidecar.server.describe protocol

picture: $(VENV)/.demo
	$(BIN)/python -m sidecar.demo --save-picture .github/demo.svg

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.fuzz: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@ $(VENV)/.dev $(VENV)/.demo

clean:
	rm -rf $(VENV) .bench .demo
