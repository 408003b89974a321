# make demo: install what runs, and walk the whole path.  make test: install the development tools too, and test.
# TORCH=cpu takes the CPU build of torch, which is much smaller: on Linux, torch from PyPI brings CUDA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test processes; each computes with one thread.
WORKERS ?= 2
MARKS := not slow

PIP := $(BIN)/python -m pip install
ifeq ($(TORCH),cpu)
PIP += --extra-index-url https://download.pytorch.org/whl/cpu
endif

# The version of torch whose figures the tests hold; the demo takes it too, and is the same everywhere.
demo test test-all lint format wheel: export PIP_CONSTRAINT ?= .ci/constraints.txt

# Each of the hundreds of commands that the tests start would compile the package anew.
test: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all lint format wheel clean

demo: $(VENV)/.runs
	@$(BIN)/braingpt quickstart

test: $(VENV)/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope -m "$(MARKS)" tests

# The slow tests too: they show at more cost what a faster one shows as well.
test-all: MARKS :=
test-all: test

lint: $(VENV)/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.develops
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.develops
	$(BIN)/pip wheel --no-deps -w dist .

# Two sets of packages, each with its stamp: what runs, and the development tools beside it.
$(VENV)/.runs: pyproject.toml
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and \
		"braingpt needs Python 3.11 or later, and $(PYTHON) is " + v + "; try make PYTHON=python3.12")'
	@echo "1/2 an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/2 braingpt and the packages that it needs; torch is the largest and takes minutes"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.develops: $(VENV)/.runs
	@echo "the development tools"
	@$(PIP) --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
