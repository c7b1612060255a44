# `make demo` and `make test` set up .venv once and reuse it.
# Variables: PYTHON, VENV, TORCH, TRANSFORMERS, EASYEDIT_HOME. Versions stand in constraints/.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= $(shell grep ^torch= constraints/oldest.txt)
TRANSFORMERS ?= $(shell grep ^transformers= constraints/oldest.txt)
EASYEDIT ?= easyeditor==0.0.1.dev0
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Two at a time, a thread each: threads of several processes on two cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
SITE = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

.PHONY: demo test suite quick test-matrix lint model setup clean

setup: $(VENV)/done

$(VENV)/done: setup.py Makefile constraints/oldest.txt constraints/newest.txt
	@echo "setting up $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# Without a GPU, torch's CPU build: from its own index where that answers, else whatever the package index has.
	@index=""; \
	if ! command -v nvidia-smi >/dev/null && $(BIN)/python -c \
	  "import urllib.request as u; u.urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	then index="--extra-index-url $(CPU_INDEX)"; fi; \
	$(PIP) $$index "$(TORCH)"
	@$(PIP) "$(TRANSFORMERS)" --editable ".[easyedit,models,bench,demo,figures,judge,test]"
	@$(PIP) --no-deps "$(EASYEDIT)"
	@touch $@

model: setup
	@$(BIN)/packe model fetch >/dev/null

demo: model
	@$(BIN)/python examples/quickstart.py

# All tests with the PyPI release of EasyEdit; those that it can change also with EASYEDIT_HOME where that is set.
test: lint suite

suite: model
	EASYEDIT_HOME="$(SITE)" $(PYTEST) -m ""
	@if [ -n "$(EASYEDIT_HOME)" ]; then echo "again, with $(EASYEDIT_HOME)"; \
	  EASYEDIT_HOME="$(EASYEDIT_HOME)" $(PYTEST) -m "" tests/easyedit tests/baselines tests/bench; fi

# The notebook with the outputs of a new run.
.PHONY: notebook
notebook: model
	$(BIN)/python notebooks/execute.py notebooks/quickstart.ipynb

# What needs no real model and little time: what `pytest` alone runs.
quick: setup
	EASYEDIT_HOME="$(SITE)" $(PYTEST)

# All tests on the oldest and the newest versions, in environments of their own: some gigabytes, and hours on two cores.
test-matrix: setup
	@$(PIP) ".[matrix]"
	$(BIN)/nox

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv* .nox build *.egg-info

# Every committed table and every figure quoted in README.md and docs/, from the archived rows.
.PHONY: tables
tables: setup
	$(BIN)/python benchmarks/tables.py
