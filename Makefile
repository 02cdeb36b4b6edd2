# One environment, .venv, from the lock. `make demo` and `make test` are all a fresh clone needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests.
WORKERS ?= 2
# Where the tests run steps as on a machine without Airflow.
STEPS := .venv-steps
# The first interpreter that runs and is supported; override with PYTHON=/path/to/python3.12.
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# Compiled bytecode makes every start of a task two to three times faster; one thread per model fit is faster on few cores.
unexport PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS ?= 1

.PHONY: help venv steps demo serve test test-fault lint bench docs screenshots lock dist system clean

help: ## show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(VENV)/.ready ## make .venv from the lock

$(VENV)/.ready: requirements/dev.lock pyproject.toml setup.cfg
	@[ -n "$(PYTHON)" ] || { echo "No Python 3.11, 3.12 or 3.13 was found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python %d.%d is not supported; name a 3.11 to 3.13: make PYTHON=/path/to/python3.12" % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[^ ]+' requirements/dev.lock)"
	@# pip is the second try: it reads settings (a company's mirror) that uv does not.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements/dev.lock || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

steps: $(STEPS)/.ready ## make .venv-steps, which has what steps need and no Airflow

$(STEPS)/.ready: $(VENV)/.ready airflow_mlops/step_requirements.txt
	$(BIN)/python -m venv --clear $(STEPS)
	$(BIN)/uv pip install --quiet --python $(STEPS)/bin/python -r airflow_mlops/step_requirements.txt || \
		$(STEPS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r airflow_mlops/step_requirements.txt
	@# Only to build the package, as in .venv.
	$(BIN)/uv pip install --quiet --python $(STEPS)/bin/python "$$(grep -oE '^setuptools==[^ ]+' requirements/dev.lock)" || \
		$(STEPS)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^setuptools==[^ ]+' requirements/dev.lock)"
	$(STEPS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv ## run the whole loop on the 2013 New York flights in a real Airflow with a real MLflow server
	$(BIN)/airflow-mlops demo

serve: venv ## keep the demo's Airflow and MLflow pages up
	$(BIN)/airflow-mlops demo --serve

# Two at a time: a file's tests stay together, and every worker has servers and an Airflow home of its own.
test: venv steps system ## run every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-fault: venv steps system ## run the races and the kills alone
	$(BIN)/python -m pytest tests/fault tests/contract/test_runtime_kills.py

lint: venv ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv ## measure side by side; writes benchmarks/results.json
	$(BIN)/python -m benchmarks

docs: venv ## build the documentation site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Open site/index.html"

screenshots: venv ## photograph the pages of the last demo for the documentation
	$(BIN)/python scripts/screenshots.py

lock: ## resolve the lock anew for Python 3.11 to 3.13
	$(BIN)/uv pip compile --universal --python-version 3.11 pyproject.toml --extra all --group dev \
		-o requirements/dev.lock --no-emit-index-url --no-emit-find-links --generate-hashes --no-annotate --no-header --upgrade
	$(BIN)/python scripts/step_requirements.py

dist: venv ## build wheel and sdist and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

system: # Postgres for the tests of races: found, or installed when root
	@scripts/system-packages

clean: ## remove what the targets made
	rm -rf $(VENV) $(STEPS) .demo dist build site
