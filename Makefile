# Two commands do everything: `make quickstart` and `make test`. Both make the environment first; both can be repeated.
# PINNED=1 installs the exact versions of constraints.txt, those that README's figures were made with.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
PINNED ?=
# Test files run side by side, each whole in one process.
JOBS ?= 2
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -q
PINS = $(if $(PINNED),--constraint constraints.txt)
STAMP = $(VENV)/.installed$(if $(PINNED),-pinned)

.PHONY: install quickstart test test-all lint benchmarks figures constraints clean

install: $(STAMP)

quickstart: $(STAMP)
	$(VENV)/bin/python -m experiments.run --config=experiments/configs/quickstart.py --workdir=$(RUN)

test: lint
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

test-all: lint
	$(VENV)/bin/python -m pytest

lint: $(STAMP)-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

benchmarks: $(STAMP)-test
	$(VENV)/bin/python -m experiments.benchmarks.sandbox

# Everything in the documentation that is made by a command, from a finished run in RUN.
figures: $(STAMP)
	$(VENV)/bin/python -m experiments.figures.rooms
	$(VENV)/bin/python -m experiments.figures.result $(RUN)

# Of a new environment, to have the latest versions: make constraints VENV=.venv-constraints
constraints: $(STAMP)-test
	$(PIP) install -e ".[test,parity,pretrained,ray]"
	$(VENV)/bin/python .ci/constraints.py > constraints.txt.new
	mv constraints.txt.new constraints.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "mlagent-jax needs Python 3.11 to 3.13; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are made last, so that an interrupted installation is repeated. Pinned and unpinned installations have stamps
# of their own, and each removes the other's: they share one environment.
$(STAMP): pyproject.toml $(if $(PINNED),constraints.txt) | $(VENV)/bin/python
	rm -f $(VENV)/.installed*
	$(PIP) install $(PINS) -e .
	touch $@

$(STAMP)-test: pyproject.toml $(if $(PINNED),constraints.txt) | $(VENV)/bin/python
	rm -f $(VENV)/.installed*
	$(PIP) install $(PINS) -e ".[test]"
	touch $@ $(STAMP)

clean:
	rm -rf $(VENV) runs .pytest_cache
