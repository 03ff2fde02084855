# Every command a person needs; `make setup` runs by itself before each.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo check test test-faults test-all bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "twotower needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[jobs,ann,onnx,dev]'
	touch $@

demo: $(STAMP)  ## the main job on the bundled Debian graph: about 10 minutes on 2 cores
	$(BIN)/twotower demo

check: $(STAMP)  ## format, lint, types, architecture: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/pytest tests/unit/test_architecture.py

test: $(STAMP)  ## unit, integration and end-to-end tests: under 15 minutes
	$(BIN)/pytest -m 'not shared_data and not slow' tests/unit tests/integration tests/e2e

test-faults: $(STAMP)  ## real processes killed: at most 45 minutes
	$(BIN)/pytest -m 'not slow' tests/faults

test-all: $(STAMP)  ## everything, the real logs too: at most 80 minutes
	$(BIN)/pytest tests

bench: $(STAMP)  ## prepare, training, ranking beside their peers, into runs/bench/
	$(BIN)/twotower bench

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
