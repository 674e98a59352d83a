# Everything is installed into .venv, with the first Python 3.11 or later that is found.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PORT ?= 8080
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-oldest lint types wheel bench bench-plots clean

help: ## List the commands.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.installed ## Serve the example service with its metrics on PORT (8080).
	@trap 'exit 0' INT; $(BIN)/hr-prometheus run examples/service.py:create_app --port $(PORT) \
		--fixed-route get_cell_neighbour=cell_id --exclude /health \
		-- --traffic http://127.0.0.1:$(PORT)

test: $(VENV)/.developed ## Run all tests, with branch coverage.
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

bench: $(VENV)/.installed ## Measure what it costs, beside its peers (ARGS="--only overhead,scrape --rounds 5").
	@$(BIN)/python benchmarks/run.py --json benchmarks/results.json $(ARGS)

bench-plots: $(VENV)/.installed ## Draw what the last "make bench" has measured, into benchmarks/plots.
	$(BIN)/python -m pip install --quiet --group plots
	$(BIN)/python benchmarks/plots.py benchmarks/results.json benchmarks/plots

clean: ## Remove all that was made.
	rm -rf .venv .venv-* dist benchmarks/plots benchmarks/results.json .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@
