# `make quickstart` shows the whole system at work, `make test` checks it. Each target makes the environment first if it
# needs one, and can be repeated.
# PINNED=1 installs the exact versions of constraints.txt, those that README's figures were made with.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
# Where `make live` keeps what it shows.
LIVE ?= runs/live
PINNED ?= 0
# Test files run side by side, each whole in one process.
JOBS ?= 2
# What to test: all, or some folders and files.
TESTS ?= tests
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -q
IS_PINNED = $(filter-out 0 no false,$(PINNED))
PINS = $(if $(IS_PINNED),--constraint constraints.txt)
STAMP = $(VENV)/.installed$(if $(IS_PINNED),-pinned)

.PHONY: install quickstart live test test-all lint benchmarks figures constraints clean clean-runs

install: $(STAMP)

quickstart: $(STAMP)
	$(VENV)/bin/python -m experiments.run --config=experiments/configs/quickstart.py --workdir=$(RUN)

# The policy of the run in RUN, or the scripted expert, directs a real language model that writes code.
live: $(STAMP)-local
	$(VENV)/bin/python -m experiments.live --run=$(RUN) --workdir=$(LIVE)

test: lint
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(TESTS)

test-all: lint
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

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

# Of a new environment, to have the latest versions: make constraints VENV=.venv-constraints. What CI installs comes
# first; the second command then chooses versions that suit all of it.
constraints: $(STAMP)-test
	.ci/extras.sh $(VENV)/bin/python
	$(PIP) install -e ".[test,parity,pretrained,ray,wandb,trackio]"
	$(VENV)/bin/python .ci/constraints.py > constraints.txt.new
	mv constraints.txt.new constraints.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "mlagent-jax needs Python 3.11 to 3.13; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are made last, so that an interrupted installation is repeated. Pinned and unpinned installations have stamps
# of their own, and each removes the other's: they share one environment.
$(STAMP): pyproject.toml $(if $(IS_PINNED),constraints.txt) | $(VENV)/bin/python
	rm -f $(VENV)/.installed*
	$(PIP) install $(PINS) -e .
	touch $@

$(STAMP)-test: pyproject.toml $(if $(IS_PINNED),constraints.txt) | $(VENV)/bin/python
	rm -f $(VENV)/.installed*
	$(PIP) install $(PINS) -e ".[test]"
	touch $@ $(STAMP)

$(STAMP)-local: $(STAMP)
	$(PIP) install $(PINS) -e ".[local]"
	touch $@

# What can be made again at no cost but time to install. Runs stay: they may be hours of training.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info

clean-runs:
	rm -rf runs
