# Everything from a fresh clone with nothing but python3 (3.11 or newer, with venv) and make. Nothing is installed outside .venv;
# what runs keeps its data in DISPATCHER_HOME (var/).

PYTHON ?= python3
PIP := .venv/bin/python -m pip --disable-pip-version-check
COMPILE := PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND='make lock' \
	.venv/lock/bin/python -m piptools compile --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --quiet
PROJECT := pyproject.toml --build-deps-for editable

.PHONY: demo test mutants bench docs screenshots up lock clean
.DELETE_ON_ERROR:

demo: .venv/run.stamp  ## the whole story in a minute; KEEP=1 leaves it running, RECIPIENTS=N chooses its size
	@.venv/bin/dispatcher demo $(if $(RECIPIENTS),--recipients $(RECIPIENTS)) $(if $(filter-out 0,$(KEEP)),--keep)

test: .venv/test.stamp  ## every check there is: tests, lint, format, types, import contracts
	@.venv/bin/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

mutants: .venv/mutants.stamp  ## some minutes: changes what decides in some thousand small ways, one by one, and counts what the tests notice
	@rm -rf mutants
	@.venv/bin/mutmut run --max-children 2 > mutants.log || (tail -n 40 mutants.log; exit 1)
	@.venv/bin/python -m tests.support.mutants

bench: .venv/test.stamp
	@.venv/bin/python -m benchmarks $(ARGS)

docs: .venv/docs.stamp  ## the documentation as a site in build/docs; a dead link, a dead anchor or any other warning fails
	@.venv/bin/python -m sphinx -W -n --keep-going -q -b html -d build/doctrees docs build/docs
	@echo "The documentation is in $(CURDIR)/build/docs/index.html"

screenshots: .venv/test.stamp  ## pictures of a running demo: docs/images and build/screenshots; needs chromium
	@.venv/bin/python -m docs.screenshots

up: .venv/run.stamp  ## for real use on this machine; Ctrl-C stops it without loss
	@.venv/bin/dispatcher up $(ARGS)

lock: .venv/lock/lock.stamp  ## newest versions that pyproject.toml allows, with the public index's hashes for all platforms
	$(COMPILE) $(PROJECT) --upgrade --output-file requirements/run.txt
	$(COMPILE) $(PROJECT) --extra test --constraint requirements/run.txt --output-file requirements/test.txt
	$(COMPILE) $(PROJECT) --extra docs --constraint requirements/test.txt --output-file requirements/docs.txt
	$(COMPILE) requirements/mutants.in --constraint requirements/test.txt --output-file requirements/mutants.txt

clean:  ## what was built; never data
	rm -rf .venv build mutants mutants.log *.egg-info

# A stamp is written last: an install that was broken off is done again, and a second `make` starts at once.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x …")'
	@$(PYTHON) -m venv .venv

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
