# make demo         see the paper's result in minutes
# make test         everything CI checks
# make bench        how fast everything is beside plain code and other libraries
# make docs         the documentation as a site, in site/
# make test-quick   the equations, the imports, the reports, the command line: under three minutes
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
QUICK := tests/test_architecture.py tests/functional tests/statistics tests/metrics tests/report tests/cli lit_purify

.PHONY: install demo docs bench test test-quick lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: install
	$(RUN) -m lit_purify test --config configs/demo.yaml

bench: install
	$(RUN) scripts/bench.py

docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml
	@echo "open site/index.html; for its search: $(RUN) -m http.server --directory site"

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# A test process per core, one thread each.
test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

test-quick: install
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 8 -m "not slow" $(QUICK)

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
