# One environment, .venv, from the lock. `make demo` and `make test` are all a fresh clone needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests.
WORKERS ?= 2
# Where the tests run steps as on a machine without Airflow.
STEPS := .venv-steps
# Where the tests run on Airflow 2.
AIRFLOW2 := .venv-airflow2
# The first interpreter that runs and is supported; override with PYTHON=/path/to/python3.12.
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# Compiled bytecode makes every start of a task two to three times faster; one thread per model fit is faster on few cores.
unexport PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS ?= 1

.PHONY: help venv steps airflow2 demo serve test test-fault test-airflow2 lint bench docs screenshots lock lock-airflow2 dist system clean

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
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

steps: $(STEPS)/.ready ## make .venv-steps, which has what steps need and no Airflow

$(STEPS)/.ready: $(VENV)/.ready airflow_mlops/step_requirements.txt
	$(BIN)/python -m venv --clear $(STEPS)
	$(BIN)/uv pip install --quiet --python $(STEPS)/bin/python -r airflow_mlops/step_requirements.txt || \
		$(STEPS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r airflow_mlops/step_requirements.txt
	@# Only to build the package, as in .venv.
	$(BIN)/uv pip install --quiet --python $(STEPS)/bin/python "$$(grep -oE '^setuptools==[^ ]+' requirements/dev.lock)" || \
		$(STEPS)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^setuptools==[^ ]+' requirements/dev.lock)"
	$(STEPS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

airflow2: $(AIRFLOW2)/.ready ## make .venv-airflow2, which has Airflow 2.11.2

# Airflow 2.11 knows Python up to 3.12: another one is named by PYTHON2=/path/to/python3.12.
PYTHON2 ?= $(shell for p in $(PYTHON) python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)

$(AIRFLOW2)/.ready: $(VENV)/.ready requirements/airflow2.lock
	@[ -n "$(PYTHON2)" ] || { echo "Airflow 2.11 runs on Python 3.11 and 3.12, and neither was found: make $(MAKECMDGOALS) PYTHON2=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON2) -m venv --clear $(AIRFLOW2)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(AIRFLOW2)/bin/python -r requirements/airflow2.lock || \
		$(AIRFLOW2)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/airflow2.lock
	$(AIRFLOW2)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: venv ## run the whole loop on the 2013 New York flights in a real Airflow with a real MLflow server
	$(BIN)/airflow-mlops demo

serve: venv ## keep the demo's Airflow and MLflow pages up
	$(BIN)/airflow-mlops demo --serve

# Two at a time: a file's tests stay together, and every worker has servers and an Airflow home of its own. What starts a
# whole Airflow comes first, all of it on one worker (tests/conftest.py).
test: venv steps system ## run every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What needs Airflow 3 is skipped, with its reason.
test-airflow2: airflow2 steps ## run unit, contract and example-DAG tests on Airflow 2.11.2
	$(AIRFLOW2)/bin/python -m pytest -n $(WORKERS) --dist loadfile tests/unit tests/contract tests/dags tests/integration/test_mlflow_hook.py

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

screenshots: venv ## photograph the pages of the last demo, and of a fleet, for the documentation
	$(BIN)/python scripts/screenshots.py
	$(BIN)/python scripts/fleet_screenshot.py

lock: ## resolve the lock anew for Python 3.11 to 3.13
	$(BIN)/uv pip compile --universal --python-version 3.11 pyproject.toml --extra all --group dev \
		-o requirements/dev.lock --no-emit-index-url --no-emit-find-links --generate-hashes --no-annotate --no-header --upgrade
	$(BIN)/python scripts/step_requirements.py

lock-airflow2: venv ## resolve the lock of Airflow 2.11.2 anew, for Python 3.11 and 3.12
	$(BIN)/uv pip compile --project requirements/airflow2 --universal --python-version 3.11 \
		pyproject.toml requirements/airflow2/pyproject.toml --extra demo -c requirements/airflow2/constraints.txt \
		-o requirements/airflow2.lock --no-emit-index-url --no-emit-find-links --generate-hashes --no-annotate --no-header --upgrade

dist: venv ## build wheel and sdist and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

system: # Postgres for the tests of races: found, or installed when root
	@scripts/system-packages

clean: ## remove what the targets made
	rm -rf $(VENV) $(STEPS) $(AIRFLOW2) .demo dist build site
