# Everything is installed into .venv, with the first Python 3.11 or later that is there, or into an environment of PYTHON.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PORT ?= 8080
METRICS_PORT ?= 9100
VENV ?= .venv$(if $(filter file,$(origin PYTHON)),,-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Where Python may not keep bytecode, each of the hundreds of processes that the tests start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# A package, a directory or git+https://github.com/aio-libs/aiohttp@BRANCH, whose parser then is the one in Python.
NEXT ?= aiohttp

.PHONY: help demo test coverage test-oldest test-next lint types wheel docs compiled bench bench-plots clean

help: ## List the commands.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## Serve the example service on PORT (8080), its metrics and status page on METRICS_PORT (9100).
	@# Make itself ends with an error at Ctrl-C, so in the foreground of a terminal the shell gives Ctrl-C to the service alone.
	@trap 'exit 0' INT; case "$$(ps -o stat= -p $$$$ 2>/dev/null)" in *+*) set -m ;; esac; \
	$(BIN)/hr-prometheus run examples/service.py:create_app --port $(PORT) --metrics-port $(METRICS_PORT) \
		--fixed-route get_cell_neighbour=cell_id --exclude /health \
		-- --traffic http://127.0.0.1:$(PORT) || [ $$? -eq 130 ]

test: $(VENV)/.developed ## Run all tests.
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

coverage: $(VENV)/.developed ## Run all tests, and see that they reach the code: half as long again as "make test".
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist loadfile $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

test-oldest: ## Run the tests with the oldest versions of the three dependencies.
	$(MAKE) VENV=.venv-oldest .venv-oldest/.developed
	.venv-oldest/bin/python -m pip install --quiet "aiohttp==3.11.*" "click==8.1.7" "prometheus-client==0.23.*"
	# The help is compared as the newest click prints it, and costs are counted with the newest aiohttp.
	.venv-oldest/bin/python -m pytest -n auto --dist loadfile --deselect tests/test_docs.py::test_help_is_the_golden_one \
		--deselect tests/test_cost.py $(ARGS)

test-next: ## Run what depends on aiohttp with its next pre-release, or with NEXT (a directory, or a branch by git+https).
	$(MAKE) VENV=.venv-next .venv-next/.developed
	AIOHTTP_NO_EXTENSIONS=1 .venv-next/bin/python -m pip install --quiet --upgrade --pre "$(NEXT)"
	@.venv-next/bin/python -c 'from aiohttp import __version__ as v; \
		print("aiohttp", v, "" if v.strip("0123456789.") else "is no pre-release: the index has none that is newer")'
	# Each test in next.txt has a reason to differ. Deprecations are for the time when aiohttp 3 is not supported any more.
	.venv-next/bin/python -m pytest -n auto --dist loadfile -W "ignore::DeprecationWarning" \
		$$(grep -lE "^(from|import) aiohttp" tests/test_*.py) tests/end_to_end \
		$$(sed -n "s/^\(tests[^ ]*\) .*/--deselect \1/p" tests/next.txt) $(ARGS)

lint: $(VENV)/.developed ## Check style and formatting.
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.developed ## Check the types.
	$(BIN)/mypy

wheel: $(VENV)/.developed ## Build wheel and sdist, and run the installed wheel in an environment of its own.
	rm -rf dist .venv-wheel
	$(BIN)/python -m build --quiet
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet dist/*.whl
	.venv-wheel/bin/python tests/check_wheel.py

docs: $(VENV)/.documented ## Build the site of the manual into build/docs. A warning is an error.
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs auto docs build/docs

# Each process of "make test" would compile all tests for itself.
compiled: $(VENV)/.developed
	$(BIN)/python -m pytest --collect-only -qq >/dev/null

bench: $(VENV)/.installed ## Measure what it costs, beside its peers (ARGS="--only overhead,scrape --rounds 5").
	@$(BIN)/python benchmarks/run.py --json benchmarks/results.json $(ARGS)

bench-plots: $(VENV)/.installed ## Draw what the last "make bench" has measured, into benchmarks/plots.
	$(BIN)/python -m pip install --quiet --group plots
	$(BIN)/python benchmarks/plots.py benchmarks/results.json benchmarks/plots

clean: ## Remove all that was made.
	rm -rf .venv .venv-* build dist benchmarks/plots benchmarks/results.json .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@
