# Everything from a fresh clone with nothing but Python (3.11 to 3.14, with venv) and make. Nothing is installed outside .venv;
# what runs keeps its data in DISPATCHER_HOME (var/).

PYTHON ?= # makes .venv where there is none; empty: the newest that fits, see tools/newest_python.sh
PIP := .venv/bin/python -m pip --disable-pip-version-check
COMPILE := PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND='make lock' \
	.venv/lock/bin/python -m piptools compile --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --quiet
PROJECT := pyproject.toml --build-deps-for editable

.PHONY: demo test mutants bench docs screenshots up lock release clean help
.DELETE_ON_ERROR:

demo: .venv/run.stamp  ## shows all of it in a minute and checks the result; KEEP=1 leaves it running, RECIPIENTS=N chooses its size
	@.venv/bin/dispatcher demo $(if $(RECIPIENTS),--recipients $(RECIPIENTS)) $(if $(filter-out 0,$(KEEP)),--keep)

test: .venv/test.stamp  ## every check: tests, lint, format, types, import contracts; ARGS go to pytest
	@.venv/bin/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

mutants: .venv/mutants.stamp  ## some minutes: changes what decides in some thousand small ways, one by one, and counts what the tests notice
	@rm -rf mutants
	@.venv/bin/mutmut run --max-children 2 > mutants.log || (tail -n 40 mutants.log; exit 1)
	@.venv/bin/python -m tests.support.mutants

bench: .venv/test.stamp  ## measures throughput and latency in six minutes; ARGS=--quick takes two
	@.venv/bin/python -m benchmarks $(ARGS)

docs: .venv/docs.stamp  ## the documentation as a site in build/docs; a dead link, a dead anchor or any other warning fails
	@.venv/bin/python -m sphinx -W -n --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "The documentation is in $(CURDIR)/build/docs/index.html"

screenshots: .venv/test.stamp  ## pictures of a running demo: docs/images and build/screenshots; needs chromium
	@.venv/bin/python -m docs.screenshots

up: .venv/run.stamp  ## runs all parts on this machine; Ctrl-C stops them without loss
	@.venv/bin/dispatcher up $(ARGS)

lock: .venv/lock/lock.stamp  ## pins the newest versions that pyproject.toml allows, with the public index's hashes for all platforms
	$(COMPILE) $(PROJECT) --upgrade --output-file requirements/run.txt
	$(COMPILE) $(PROJECT) --extra test --constraint requirements/run.txt --output-file requirements/test.txt
	$(COMPILE) $(PROJECT) --extra docs --constraint requirements/test.txt --output-file requirements/docs.txt
	$(COMPILE) requirements/mutants.in --constraint requirements/test.txt --output-file requirements/mutants.txt

release: | .venv/bin/python  ## VERSION=x.y.z: sets the version, dates the changelog, commits and tags; pushes nothing
	@.venv/bin/python -m tools.release $(VERSION)

clean:  ## removes what was built, the virtual environment too; never data
	rm -rf .venv build mutants mutants.log *.egg-info

help:  ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1#/p' $(MAKEFILE_LIST) | awk -F '#' '{ printf "make %-12s %s\n", $$1, $$2 }'

# A stamp is written last: an install that was broken off is done again, and a second `make` starts at once.
.venv/bin/python:
	@python=$$(sh tools/newest_python.sh '$(PYTHON)') && echo "Making .venv with $$python …" >&2 && "$$python" -m venv .venv

.venv/run.stamp .venv/test.stamp .venv/docs.stamp: .venv/%.stamp: requirements/%.txt pyproject.toml | .venv/bin/python
	@echo "Installing what requirements/$*.txt pins into .venv …" >&2
	@$(PIP) install --quiet --require-hashes --requirement requirements/$*.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Without dependencies of dependencies: the file has them all but a twin of PyYAML that libcst asks for on Python 3.13 and does not use here.
.venv/mutants.stamp: requirements/mutants.txt | .venv/test.stamp
	@$(PIP) install --quiet --require-hashes --no-deps --requirement $<
	@touch $@

.venv/lock/lock.stamp: | .venv/bin/python
	@.venv/bin/python -m venv .venv/lock
	@.venv/lock/bin/python -m pip --disable-pip-version-check install --quiet pip-tools
	@touch $@
