# Everything runs in a virtual environment of its own (.venv), with the versions pinned in requirements/.
# Needs Python 3.11 or later with venv and pip, and make. `make run PYTHON=python3.13` takes another Python.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= 2
TRIES ?= 5
SECONDS ?= 600
HISTORIES ?= 20000
CYCLES ?= 200
KILLS ?= 50
TESTS ?= not slow and not cassandra
RUNS ?= 20
FILE ?= src/langchain_kv/values/keys.py
TESTS_OF ?= tests/unit/test_codecs.py
ROUNDS ?= 200
PYTHONS ?= 3.12 3.13 3.14
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Kept, though only patterns name them.
.PRECIOUS: .venv-%/ready-to-test

.PHONY: screenshots mutants help run test test-fast lengthy test-pythons test-cassandra test-cluster races coverage coverage-page reference transcripts bench bench-full kill kill-upgrade wal-guard soak simulate reliability site release-check check format pins clean

help:
	@echo "make run        keep Python's standard library in a store, on a file and over HTTP, and check it"
	@echo "make test       run every test but test-cluster's (those on a real Apache Cassandra where Java 17 and Maven are found)"
	@echo "make test-fast  run the tests that take no longer than a moment"
	@echo "make test-pythons  run all but the slow tests with each other Python that is claimed, PYTHONS='$(PYTHONS)', fetched if need be (TESTS='not cassandra': these)"
	@echo "make lengthy    renew tests/data/lengthy.txt, which tests the fast suite leaves out, by what each takes now"
	@echo "make test-cassandra  run only the tests on a real Apache Cassandra, whose jars are fetched"
	@echo "make test-cluster  kill nodes of a cluster of three under work, and look for what was lost (three minutes, 3 GB)"
	@echo "make races      race ROUNDS=200 of each mix of changes by CQL and by HTTP on a real Apache Cassandra (two minutes)"
	@echo "make coverage   what all but the slow tests reach of the package, and what not (TESTS='not cassandra': all but Cassandra's)"
	@echo "make coverage-page  renew docs/data-api-coverage.md, the page of what the local server answers"
	@echo "make reference  renew docs/reference/, from docstrings, lckv --help and errors.py"
	@echo "make screenshots  renew the pictures of docs/explorer.md, by the Chromium that is installed"
	@echo "make transcripts  renew tests/data/transcripts/, what every command of lckv prints"
	@echo "make site       build the documentation as a site into build/site, strictly: a broken link is an error"
	@echo "make release-check  a release's dry run: sdist and wheel, their metadata, an empty environment, README's blocks in it"
	@echo "make mutants FILE=src/... TESTS_OF='tests/...'  change each place of a module in turn, and tell which changes no test sees"
	@echo "make kill       kill writers of a file CYCLES=200 times, and compare every acknowledged batch"
	@echo "make kill-upgrade  kill the upgrade of an old file at KILLS=50 random moments, and compare every value"
	@echo "make wal-guard  checkpoint while others commit, RUNS=20 times of 20 s, and for contrast without the lock"
	@echo "make soak       a mixed load through faults for SECONDS=600, then a look for leaks and wrong values (Linux)"
	@echo "make simulate   HISTORIES=20000 of clients in a network that loses and repeats, each one checked (SEED=n: one)"
	@echo "make reliability  try every fault five times and renew the tables in docs/reliability.md (TRIES=20 for more)"
	@echo "make bench      compare with the peers and with the bare requests and SQL (half an hour); bench-full: all of it"
	@echo "make check      lint, formatting, types"
	@echo "make format     put the code in its format"
	@echo "make pins       renew the pinned versions in requirements/"
	@echo "make clean      remove what these made"

run: $(VENV)/ready-to-run
	$(BIN)/python examples/stdlib_parents.py

test: $(VENV)/ready-to-test
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not alone"

test-fast: $(VENV)/ready-to-test
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow and not lengthy and not cassandra"

# Each with an environment of its own, .venv-3.14 and so on: `make test-python-3.14` is one of them.
test-pythons: $(PYTHONS:%=test-python-%)

test-python-%: .venv-%/ready-to-test
	.venv-$*/bin/python -m pytest -q -n $(JOBS) -m "$(TESTS)"

lengthy: $(VENV)/ready-to-test
	$(BIN)/python -m pytest -q -n 3 -m "not slow and not cassandra" --junitxml=build/times.xml
	PYTHONPATH=tests $(BIN)/python -m meta.lengthy build/times.xml

test-cassandra: $(VENV)/ready-to-test
	$(BIN)/python -m pytest -q -m "cassandra and not alone"

test-cluster: $(VENV)/ready-to-test
	$(BIN)/python -m pytest -q -o faulthandler_timeout=280 tests/cluster/test_cassandra_three_nodes.py

races: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m cluster.races $(ROUNDS)

coverage: $(VENV)/ready-to-test
	$(BIN)/python -m pytest -q -n $(JOBS) -m "$(TESTS)" --durations=40 --cov --cov-report=term-missing:skip-covered --cov-report=json
	$(BIN)/python tests/meta/coverage_by_package.py coverage.json

coverage-page: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m conformance.coverage_page > docs/data-api-coverage.md

reference: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m meta.reference

screenshots: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python tests/explorer/screenshots.py

transcripts: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m transcripts

site: $(VENV)/ready-to-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

release-check: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m meta.release_check

# In a copy, because each change is made in the file itself.
mutants: $(VENV)/ready-to-test
	rm -rf .mutants && mkdir .mutants && git ls-files -z | xargs -0 cp --parents -t .mutants
	cd .mutants && { \
		echo '[cosmic-ray]'; echo 'module-path = "$(FILE)"'; echo 'timeout = 120.0'; \
		echo 'test-command = "env PYTHONPATH=src ../$(BIN)/python -m pytest -q -x -n 0 -p no:cacheprovider $(TESTS_OF)"'; \
		echo '[cosmic-ray.distributor]'; echo 'name = "local"'; \
		echo '[cosmic-ray.filters.operators-filter]'; \
		echo 'exclude-operators = ["core/ReplaceBinaryOperator_BitOr_.*"]'; } > mutants.toml # only in annotations
	cd .mutants && ../$(BIN)/cosmic-ray baseline mutants.toml && ../$(BIN)/cosmic-ray init mutants.toml mutants.sqlite
	cd .mutants && ../$(BIN)/cr-filter-operators mutants.sqlite mutants.toml
	cd .mutants && ../$(BIN)/cosmic-ray exec mutants.toml mutants.sqlite
	cd .mutants && ../$(BIN)/cr-report --show-diff --surviving-only mutants.sqlite

kill: $(VENV)/ready-to-test
	$(BIN)/python tests/faults/engine_crashes.py --cycles $(CYCLES)

kill-upgrade: $(VENV)/ready-to-test
	UPGRADE_KILLS=$(KILLS) $(BIN)/python -m pytest -q tests/unit/test_sqlite_schema.py -k killed

wal-guard: $(VENV)/ready-to-test
	$(BIN)/python tests/faults/wal_guard.py --runs $(RUNS)

soak: $(VENV)/ready-to-test
	$(BIN)/python tests/faults/soak.py $(SECONDS)

simulate: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m simulation --histories $(HISTORIES) --jobs $(JOBS) $(if $(SEED),--seed $(SEED))

reliability: $(VENV)/ready-to-test
	PYTHONPATH=tests $(BIN)/python -m faults.matrix --tries $(TRIES)
	PYTHONPATH=tests $(BIN)/python -m faults.file_matrix

bench bench-full: $(VENV)/ready-to-bench
	$(BIN)/python -m benchmarks $(if $(filter bench-full,$@),--full)

check: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready-to-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamps: each is newer than what it was made from, so a second call has nothing to do.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No python3.11 or python3 found: install Python 3.11 or later." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: give another, as in make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/ready-to-run: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	$(PIP) install -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/ready-to-test: requirements/dev.txt $(VENV)/ready-to-run
	$(PIP) install -r requirements/dev.txt
	@touch $@

.venv-%/ready-to-test: requirements/run.txt requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No python3.11 or python3 found: install Python 3.11 or later." >&2; exit 1; }
	python="$$("$(PYTHON)" tests/find_python.py $*)" && "$$python" -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/dev.txt
	.venv-$*/bin/python -m pip --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/ready-to-bench: requirements/bench.txt $(VENV)/ready-to-run
	$(PIP) install -r requirements/bench.txt
	@touch $@

pins: clean $(VENV)/bin/python
	$(PIP) install --upgrade -r requirements/run.in --editable '.[cli]'
	$(PIP) freeze --exclude-editable > requirements/run.txt
	$(PIP) install -r requirements/dev.in -c requirements/run.txt
	{ echo "-r run.txt"; $(PIP) freeze --exclude-editable | grep -vxFf requirements/run.txt \
		| sed 's/^SecantusDB==.*/&; python_version < "3.14"/'; } > requirements/dev.txt
	$(PIP) install -r requirements/bench.in -c requirements/run.txt
	{ echo "-r run.txt"; $(PIP) freeze --exclude-editable | grep -vxFf requirements/run.txt; } > requirements/bench.txt

clean:
	rm -rf $(VENV) .venv-* .pythons .mutants build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
