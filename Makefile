# The two commands are `make demo` and `make test`; each sets up everything it needs, from Python 3.11, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test modules check format bench faults ledger clean

help:
	@echo "make demo    set up, then a governed run end to end, with an explanation for each step"
	@echo "make test    set up, then the whole suite with branch coverage"
	@echo "make check   format, lint, types, import contract, documents held to code, the reference ledger"
	@echo "make format  rewrite the code in its one format"
	@echo "make bench   set up, then the figures of docs/benchmarks.md"
	@echo "make faults  set up, then every fault of docs/faults.md that a test only samples"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "found $$($(PYTHON) --version 2>&1), expected Python 3.11 or newer; fix: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[llamacpp,postgres,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY) modules
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not threads' --cov --cov-report=term:skip-covered --cov-fail-under=95
	$(BIN)/python -m pytest -m threads

# Go is not needed; where it is there, programs over others' packages check what govrun writes, and others' vectors are
# read from Go's module cache. What cannot be had is skipped by the tests, which say what was not shown.
modules:
	@if command -v go >/dev/null; then for module in go tessera published; do \
	  (cd tests/interop/$$module && GOTOOLCHAIN=local go mod download) || echo "tests/interop/$$module: no modules"; \
	done; fi

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs
	@chmod go-w ledger/trust.toml
	$(BIN)/govrun verify ledger --trust ledger/trust.toml --checkpoint ledger/checkpoint

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks

# strace causes the faults, and Go's sumdb packages judge what they left; what is missing is said aloud.
faults: $(READY) modules
	$(BIN)/python -m faults

# The reference ledger was made once for format 1 and is kept for ever; this refuses to write it again.
ledger: $(READY)
	$(BIN)/python tests/reference/make_ledger.py ledger

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
