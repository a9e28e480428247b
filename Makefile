# guardfleet: everything a user or a contributor types. `make help` lists it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DOCS   := $(VENV)/.installed-docs

# What `make coverage` runs: the rooms that need no process but PostgreSQL. COVERED=tests asks all of them.
COVERED ?= tests/unit tests/property tests/store

# Hundreds of processes are started by tests: without bytecode on disk each would compile our modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check lint coverage docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(STAMP) ## run the main job on examples/texts.jsonl, end to end, embedded
	@$(BIN)/python examples/demo.py

test: $(STAMP) ## run every test; what a missing server skips is said with its reason
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(STAMP) lint ## linters, types, import contracts, unit and property tests, in two minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/unit tests/property

lint: $(STAMP)
	@[ ! -e .git ] || $(BIN)/python .ci/commit_subjects.py
	@$(BIN)/ruff check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo || $(BIN)/lint-imports --verbose

coverage: $(STAMP) ## say which lines and branches tests reach; COVERED=tests asks all rooms
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile $(COVERED) --cov --cov-report term --cov-report xml

docs: $(DOCS) ## write the generated pages again and build the site into site/
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the virtual environment, caches and what was built
	rm -rf $(VENV) site .coverage coverage.xml .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# constraints.txt pins torch to the build that installs without CUDA packages, and everything else to what was tested.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e ".[all]" --group dev
	@$(BIN)/python -m compileall -qq -j 0 -x transformers/models/ $(VENV)/lib || true  # pip takes one core; of those few are ever imported
	@touch $(STAMP)

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --group docs
	@touch $(DOCS)
