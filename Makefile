# `make help` lists everything.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup demo serve test soak check format schema bench performance lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## .venv with the `crew` command, locked dependencies, GraphiQL's files, sdk/js built

LOCKS := requirements.lock graphiql/package-lock.json sdk/js/package-lock.json tests/audits/package-lock.json tests/clients/package-lock.json

$(STAMP): pyproject.toml $(LOCKS) graphiql/install.py graphiql/index.html graphiql/page.js graphiql/page.css
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Crew needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . -e sdk/python
	$(BIN)/python graphiql/install.py
	$(BIN)/python -m tests.support.node
	$(BIN)/python -m tests.support.javascript
	@touch $@

demo: setup ## the ad campaign, end to end, with its picture in the terminal
	$(BIN)/crew demo

serve: setup ## the server on 127.0.0.1:8000
	$(BIN)/crew serve

test: setup ## every test but the long soaks, then the checks
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadscope
	$(MAKE) check

soak: setup ## the long ones
	$(BIN)/python -m pytest -m soak

check: setup ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd sdk/python && ../../$(BIN)/mypy
	$(BIN)/python -m tests.support.javascript
	$(BIN)/lint-imports

format: setup ## let ruff format and mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: setup ## print schema/crew.graphql and sql/schema.sql afresh
	$(BIN)/crew schema --write
	$(BIN)/python -m tests.support.dump_schema

bench: setup ## tasks/s through HTTP and straight through asyncpg, and what graphs cost (minutes)
	$(BIN)/python -m bench.throughput
	$(BIN)/python -m bench.graphs

performance: setup ## docs/performance.md and its plots, from the kept measurements
	$(BIN)/python -m bench.performance

lock: ## lock the newest dependencies (needs uv)
	uv pip compile --universal --generate-hashes --quiet --upgrade pyproject.toml --group dev -o requirements.lock

clean: ## remove what was installed and generated here
	rm -rf .venv .crew server/static/graphiql graphiql/node_modules sdk/js/node_modules sdk/js/dist tests/*/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
