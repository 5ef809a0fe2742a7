# Two commands do all: `make quickstart` and `make test`. Both make the environment first; both may be repeated.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
# Test files run side by side, each whole in one process.
JOBS ?= 2
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check -q

.PHONY: install quickstart test test-all lint benchmarks clean

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(VENV)/bin/python -m experiments.run --config=experiments/configs/quickstart.py --workdir=$(RUN)

test: lint
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

test-all: lint
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

benchmarks: $(VENV)/.installed-test
	$(VENV)/bin/python -m experiments.benchmarks.sandbox

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "mlagent-jax needs Python 3.11 to 3.13; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps are made last, so that an interrupted installation is taken up again.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(PIP) install -e ".[test]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs .pytest_cache
