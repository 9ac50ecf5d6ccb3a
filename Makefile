# Every target works in a fresh clone that has only Python 3.11+, git and make: what is missing is set up first.
.DEFAULT_GOAL := help

# PYTHON=python3.12 picks a Python; TORCH=cpu or cuda picks PyTorch's build; TORCH_INDEX says where its CPU build is.
PYTHON ?= python3
TORCH ?= auto
export PYTHON TORCH TORCH_INDEX
# More flags for pytest, such as TEST_FLAGS="-k resume -x".
TEST_FLAGS ?=

bin := .venv/bin

.PHONY: help setup demo check test test-all format lock system-deps clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## makes .venv from the locks (about 2 minutes, once)
	@tools/setup.sh

demo: setup ## the whole story here: launch, be preempted twice, go on elsewhere, compare (about 2 minutes)
	@$(bin)/baton demo

check: setup system-deps ## locks, format, lint, shell, types, borders (about 1 minute)
	@tools/check.sh

test: setup system-deps ## the core tests (at most 12 minutes)
	@$(bin)/python -m pytest -n 2 --dist loadfile -m "not long" $(TEST_FLAGS)

test-all: test ## the core tests, then the long ones (at most 20 minutes more)
	@$(bin)/python -m pytest -n 2 --dist loadfile -m long $(TEST_FLAGS)

format: setup ## formats, and mends what the linter can mend
	@$(bin)/ruff format --quiet .
	@$(bin)/ruff check --fix --quiet .

lock: setup ## resolves the locks again from pyproject.toml (10 s, network)
	@$(bin)/python tools/lock.py

system-deps: ## what checks and tests need of the system, by apt where that can be done
	@tools/system-deps.sh

clean: ## removes .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build ./*.egg-info
