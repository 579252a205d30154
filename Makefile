# Two commands, each does all of its own set-up on a machine with only python3 and make:
#
#   make demo   a real sweep: eight worker processes share one cache
#   make test   every check: ruff, mypy, import-linter, pytest
#
# Everything stays inside the checkout (.venv, .cache, build: git-ignored). Temporary files live in one short directory
# under /tmp (a Unix socket's path ends at 107 bytes), which is removed when the command ends.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DEMO_DIR := build/demo/.motools
OUT ?= build/bench

export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis

# Runs what follows with a TMPDIR of its own, removed on every way out. Others may walk through it: tests run as them.
IN_SHORT_TMPDIR = tmp=$$(mktemp -d /tmp/mt.XXXXXX) && chmod 711 "$$tmp" && \
	trap 'rm -rf "$$tmp"' EXIT && trap 'exit 130' INT && trap 'exit 143' TERM && export TMPDIR="$$tmp" &&

.DEFAULT_GOAL := help
.PHONY: help demo test torture coverage docs bench clean

help:
	@echo 'make demo    run a real sweep: eight worker processes share one cache'
	@echo 'make test    run every check: ruff, mypy, import-linter, pytest'
	@echo 'make torture  attack every promise with real faults, for hours; PART=name: one of them, half an hour at most'
	@echo 'make coverage run the tests, and show which lines they do not come by'
	@echo 'make docs    write docs/reference anew, from the docstrings and the commands'
	@echo 'make bench   measure against Redis, memcached, LMDB, SQLite and others; QUICK=1: in two minutes'
	@echo 'make clean   remove what the commands above made'

demo: $(VENV)/.ready-demo
	@rm -rf build/demo
	@echo 'A sweep in a fresh directory: each configuration is wanted by two workers.'
	@$(IN_SHORT_TMPDIR) $(PY) -m examples.sweep --cache-dir $(DEMO_DIR)
	@echo
	@echo 'The same sweep again, on the same directory: all hits.'
	@$(IN_SHORT_TMPDIR) $(PY) -m examples.sweep --cache-dir $(DEMO_DIR)

test: $(VENV)/.ready-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo --cache-dir .cache/import-linter
	$(IN_SHORT_TMPDIR) $(PY) -m pytest -n 2 --dist worksteal -m 'not alone'
	$(IN_SHORT_TMPDIR) $(PY) -m pytest -m alone

# The long form of every attack, or of PART; goes on where it was interrupted. Writes docs/reliability.md.
# The fuzzer has wheels for some Pythons only; without it its part is skipped, with the reason.
torture: $(VENV)/.ready-test
	-$(PY) -m pip install --quiet --only-binary :all: 'atheris>=2.3'
	$(IN_SHORT_TMPDIR) $(PY) -m tests.faults.torture $(PART)

# Apart from the checks: it costs a tenth of their time.
coverage: $(VENV)/.ready-test
	@mkdir -p .cache/coverage && rm -f .cache/coverage/data*
	$(IN_SHORT_TMPDIR) $(PY) -m pytest --cov --cov-report=term

# A test fails if what is committed is something else.
docs: $(VENV)/.ready-test
	$(PY) -m docs._generate

# Report, figures and plots go to OUT; FLAGS are those of `python -m bench`. Peers that are not installed are skipped.
bench: $(VENV)/.ready-bench
	@$(IN_SHORT_TMPDIR) $(PY) -m bench $(if $(QUICK),--quick) --out $(OUT) $(FLAGS)

clean:
	rm -rf $(VENV) .cache build dist .coverage .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are as old as the pyproject.toml they were installed from.
$(VENV)/.ready-demo: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[demo]'
	@$(PY) -m compileall -q motoolsd client/motools
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[dev,demo]'
	@$(PY) -m compileall -q motoolsd client/motools
	@touch $@ $(VENV)/.ready-demo

$(VENV)/.ready-bench: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --editable '.[bench]'
	@$(PY) -m compileall -q motoolsd client/motools bench
	@touch $@

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'motoolsd needs Python 3.11 or newer. Name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'This Python cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv' >&2; \
	  exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
