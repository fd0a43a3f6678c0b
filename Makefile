# All targets work in a fresh clone with Python (3.11 to 3.14, with venv) and make. They install nothing outside .venv; running
# programs keep their data in DISPATCHER_HOME (var/).

PYTHON ?= # creates .venv; empty: the newest suitable Python, see tools/newest_python.sh
PIP := .venv/bin/python -m pip --disable-pip-version-check
COMPILE := PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND='make lock' \
	.venv/lock/bin/python -m piptools compile --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --quiet
PROJECT := pyproject.toml --build-deps-for editable

.PHONY: demo dev test chaos fuzz mutants bench docs screenshots up lock release clean help
.DELETE_ON_ERROR:

demo: .venv/run.stamp  ## runs a demo of all parts in a minute and checks the result; KEEP=1 leaves it running, RECIPIENTS=N sets its size
	@.venv/bin/dispatcher demo $(if $(RECIPIENTS),--recipients $(RECIPIENTS)) $(if $(filter-out 0,$(KEEP)),--keep)

dev: .venv/test.stamp  ## makes .venv, with everything for development

# One process more than processors: the tests of whole workers wait much.
test: .venv/test.stamp  ## runs all checks: tests, lint, format, types, import contracts; ARGS are passed to pytest
	@.venv/bin/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal --durations=25 --durations-min=2 $(ARGS)

chaos: .venv/test.stamp  ## kills, freezes and cuts off every process under load and checks every promise, half an hour; ARGS="--faults N --seed S --minutes M"
	@.venv/bin/python -m tests.chaos $(ARGS)

fuzz: .venv/test.stamp  ## imports and submits generated files of all kinds and checks that no row and no opt-out is lost; ARGS="--files N --seed S"
	@.venv/bin/python -m tests.fuzz $(ARGS)

mutants: .venv/mutants.stamp  ## mutation test of the policy and outcomes, some minutes: makes thousands of small changes and counts those that tests notice
	@rm -rf mutants
	@.venv/bin/mutmut run --max-children 2 > mutants.log || (tail -n 40 mutants.log; exit 1)
	@.venv/bin/python -m tests.support.mutants

bench: .venv/test.stamp  ## measures throughput and latency in six minutes; ARGS=--quick takes two
	@.venv/bin/python -m benchmarks $(ARGS)

docs: .venv/docs.stamp  ## builds the documentation site in build/docs; a dead link, a dead anchor or any other warning fails
	@.venv/bin/python -m sphinx -W -n --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "The documentation is in $(CURDIR)/build/docs/index.html"

screenshots: .venv/test.stamp  ## takes screenshots of a running demo: docs/images and build/screenshots; needs chromium
	@.venv/bin/python -m docs.screenshots

up: .venv/run.stamp  ## runs all processes on this machine; Ctrl-C stops them without loss of data
	@.venv/bin/dispatcher up $(ARGS)

lock: .venv/lock/lock.stamp  ## pins the newest versions that pyproject.toml allows, with the public index's hashes for all platforms
	$(COMPILE) $(PROJECT) --extra test --upgrade --output-file requirements/test.txt
	$(COMPILE) $(PROJECT) --constraint requirements/test.txt --upgrade --output-file requirements/run.txt
	$(COMPILE) $(PROJECT) --extra docs --constraint requirements/test.txt --output-file requirements/docs.txt
	$(COMPILE) requirements/mutants.in --constraint requirements/test.txt --output-file requirements/mutants.txt
	$(COMPILE) requirements/generator.in --upgrade --output-file requirements/generator.txt

release: | .venv/bin/python  ## VERSION=x.y.z: sets the version, dates the changelog, commits and tags; pushes nothing
	@.venv/bin/python -m tools.release $(VERSION)

clean:  ## removes build results and the virtual environment; never data
	rm -rf .venv build mutants mutants.log *.egg-info

help:  ## prints this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1#/p' $(MAKEFILE_LIST) | awk -F '#' '{ printf "make %-12s %s\n", $$1, $$2 }'

# A stamp is written last: an interrupted installation is repeated, and a second `make` starts at once.
.venv/bin/python:
	@python=$$(sh tools/newest_python.sh '$(PYTHON)') && echo "Creating .venv with $$python …" >&2 && "$$python" -m venv .venv

.venv/run.stamp .venv/test.stamp .venv/docs.stamp: .venv/%.stamp: requirements/%.txt pyproject.toml | .venv/bin/python
	@echo "Installing the packages of requirements/$*.txt into .venv …" >&2
	@$(PIP) install --quiet --require-hashes --requirement requirements/$*.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# --no-deps: the file lists all dependencies but a fork of PyYAML that libcst declares for Python 3.13 and does not use here.
.venv/mutants.stamp: requirements/mutants.txt | .venv/test.stamp
	@$(PIP) install --quiet --require-hashes --no-deps --requirement $<
	@touch $@

# A virtual environment of its own: the generator needs an older typer than the program.
.venv/test.stamp: | .venv/generator/generator.stamp
.venv/generator/generator.stamp: requirements/generator.txt | .venv/bin/python
	@.venv/bin/python -m venv .venv/generator
	@.venv/generator/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement $<
	@touch $@

.venv/lock/lock.stamp: | .venv/bin/python
	@.venv/bin/python -m venv .venv/lock
	@.venv/lock/bin/python -m pip --disable-pip-version-check install --quiet pip-tools
	@touch $@
