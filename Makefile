# The commands of the project. Needs Python 3.11 or newer, a C compiler and make; everything else goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# python3.11 first, since constraints.txt was made with it; its versions install on 3.12 and 3.13 too.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# More than two cores, since tests also wait: for servers, locks and processes that they kill.
WORKERS ?= 4
# Where it is set, each worker would compile all tests again.
unexport PYTHONDONTWRITEBYTECODE
CONFIG ?= configs/demo.yaml
BENCHMARKS ?= episode_step training_step

.PHONY: help install demo test check format docs bench clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(VENV)/.installed ## Create .venv and install fspo into it

demo: $(VENV)/.installed ## Run the whole loop on the built-in model: data, training, evaluation, report (under 20 minutes on 2 cores with bfloat16)
	$(BIN)/fspo model pull smollm2-135m
	$(BIN)/fspo run --config $(CONFIG)

test: $(VENV)/.installed-dev ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev ## Check style, types, import directions and generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m fspo.cli.reference --check docs/cli.md
	$(BIN)/python -m fspo.cli.settings_reference --check docs/settings.md
	$(BIN)/python -m examples.tour --check

format: $(VENV)/.installed-dev ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed ## Generate the references of commands and settings, and the notebook
	$(BIN)/python -m fspo.cli.reference docs/cli.md
	$(BIN)/python -m fspo.cli.settings_reference docs/settings.md
	$(BIN)/python -m examples.tour

bench: $(VENV)/.installed-dev ## Run the benchmarks and save their results under docs/results/
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name --out docs/results/$$name; done

clean: ## Remove .venv and caches (runs and models stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The stamps are written last, so that an interrupted installation is done again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	touch $(VENV)/.installed $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "fspo needs Python 3.11 or newer with its venv module (Debian: apt install python3.11-venv); name one with make PYTHON=..." >&2; exit 2; fi
	$(PYTHON) -m venv $(VENV)
