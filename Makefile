# `make demo` and `make test` set up .venv once and reuse it. Variables: PYTHON, TORCH, TRANSFORMERS, EASYEDIT_HOME.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRANSFORMERS ?= transformers==5.5.4
EASYEDIT ?= easyeditor==0.0.1.dev0
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

PYTEST := $(BIN)/python -m pytest -m ""
SITE = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: demo test quick lint model setup clean

setup: .venv/done

.venv/done: setup.py Makefile
	@echo "setting up .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# Without a GPU, torch's CPU build: from its own index where that answers, else whatever the package index has.
	@index=""; \
	if ! command -v nvidia-smi >/dev/null && $(BIN)/python -c \
	  "import urllib.request as u; u.urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	then index="--extra-index-url $(CPU_INDEX)"; fi; \
	$(PIP) $$index "$(TORCH)"
	@$(PIP) "$(TRANSFORMERS)" --editable ".[easyedit,models,bench,test]"
	@$(PIP) --no-deps "$(EASYEDIT)"
	@touch $@

model: setup
	@$(BIN)/packe model fetch >/dev/null

demo: model
	@$(BIN)/python examples/quickstart.py

# All tests with the PyPI release of EasyEdit; those that it can change also with EASYEDIT_HOME where that is set.
test: lint model
	EASYEDIT_HOME="$(SITE)" $(PYTEST)
	@if [ -n "$(EASYEDIT_HOME)" ]; then echo "again, with $(EASYEDIT_HOME)"; \
	  EASYEDIT_HOME="$(EASYEDIT_HOME)" $(PYTEST) tests/easyedit tests/baselines tests/bench; fi

# What needs no real model and little time: what `pytest` alone runs.
quick: setup
	EASYEDIT_HOME="$(SITE)" $(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info

# Every committed table and every figure quoted in README.md and docs/, from the archived rows.
.PHONY: tables
tables: setup
	$(BIN)/python benchmarks/tables.py
