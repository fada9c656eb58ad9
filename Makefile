# Each target does its own set-up into .venv: a fresh clone needs python3 (with venv), git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# most tests wait for processes rather than compute, so more of them than processors
WORKERS ?= 3
STAMP  := $(VENV)/.installed

.PHONY: help setup demo demo-containers test check bench soak clean

help:
	@echo "make demo   run the model case on real input: JavaScript source, Python replicas, Java sink into SQLite"
	@echo "make demo-containers   the same with each processor in a container of its own"
	@echo "make test   all tests"
	@echo "make check  ruff, mypy, import-linter"
	@echo "make bench  the benchmarks of docs/benchmarks.md"
	@echo "make soak   the full counts of every kill and fault suite"

setup: $(STAMP)

$(STAMP): pyproject.toml hatch_build.py $(wildcard runner/launch/shim/*.[ch]) $(wildcard runner/codec/*.c runner/store/*.c) runner/launch/shim/build.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	@$(BIN)/python examples/flights/demo.py

demo-containers: setup
	@$(BIN)/python examples/flights/demo.py --containers

test: setup
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not alone"
	@$(BIN)/python -m pytest -m alone

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/python -m bench

soak: setup
	@$(BIN)/python -m pytest -m soak --timeout 3600 -s

clean:
	rm -rf $(VENV) .cache build dist runner/launch/shim/bin runner/codec/bin runner/store/bin bench/bin
