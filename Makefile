# Nothing but Python 3.11+, make and git need be there: every target makes .venv and installs what it lacks.
#
#   make demo    train real networks with backprop and with Z-IL, and compare
#   make test    run the tests
#   make bench   time Z-IL against backprop and others, into docs/performance.md
#   make reproduce   the paper's tables and figures, into pcgraph-results/
#   make lint    ruff and mypy
#   make docs    API pages into site/
#
# torch comes first and by its exact version. On Linux, a plain `pip install torch` may fetch a CUDA build of several
# gigabytes; to use another build, name it: make demo TORCH="torch==2.14.1", or pip's options with it.

PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST_ARGS ?= -n 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test bench reproduce lint format docs clean
.NOTPARALLEL:

demo: $(STAMP)-demo
	$(BIN)/pcgraph demo

# One thread for each of the two workers: more would only wait for one another.
test: $(STAMP)-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(STAMP)-plot
	$(BIN)/pcgraph bench --models all --json bench.json --plot bench.svg --write docs/performance.md

reproduce: $(STAMP)-reproduce
	$(BIN)/pcgraph reproduce --output pcgraph-results

lint: $(STAMP)-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)-docs
	$(BIN)/pdoc --docformat google --output-directory site pcgraph

clean:
	rm -rf $(VENV) site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(STAMP)-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pcgraph needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(STAMP)-torch: $(STAMP)-venv
	$(BIN)/python -m pip install $(TORCH)
	touch $@

$(STAMP)-%: $(STAMP)-torch pyproject.toml
	$(BIN)/python -m pip install --editable '.[$*]'
	touch $@
