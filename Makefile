# avcall: `make demo` runs a whole call on this machine, `make test` checks the source. `make help` lists all.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Where the networks run: cpu, or cuda for an NVIDIA GPU.
RUNTIME ?= cpu
# Handed on: `make demo ARGS="--camera me.mp4"`, `make test ARGS="-k packet"`.
ARGS ?=
BIN := .venv/bin

.PHONY: help setup setup-dev demo doctor lint test constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: ## install what a call needs into .venv (RUNTIME=cuda: for NVIDIA)
	@scripts/setup.sh call $(RUNTIME)

setup-dev: ## install what training, lint and tests need as well
	@scripts/setup.sh dev $(RUNTIME)

demo: setup ## make a whole call on this machine and write it to demo-out/
	@$(BIN)/avcall demo $(ARGS)

doctor: setup ## say what this machine has for a call
	@$(BIN)/avcall doctor

lint: setup-dev ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint ## lint, then every test with coverage
	$(BIN)/pytest --cov --cov-report=term $(ARGS)

constraints: setup-dev ## write the installed versions to constraints.txt
	@{ head -n 1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+.*//'; } >constraints.new
	@mv constraints.new constraints.txt

clean: ## remove .venv and everything generated
	rm -rf .venv build dist *.egg-info demo-out .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
