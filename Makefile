PYTHON ?= python3
BIN := .venv/bin
# Set-up writes there what the commands need to find a Compose plugin that it had to build.
ENV := . .tools/environment &&

.PHONY: help setup demo test chaos lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole story on real Docker, told step by step (under 5 minutes)"
	@echo "make test    every test, on real Docker, Postgres and Redis"
	@echo "make chaos   every fault of docs/reliability.md in its long form, with kills at random (about 2 hours)"
	@echo "make lint    ruff, mypy and the layer contract"
	@echo "make bench   Lockstep beside tar, cp, restic and borg; writes docs/benchmarks.md (about 45 minutes)"
	@echo "make setup   what the others do first: virtual environment, Docker, Compose, images"
	@echo "make clean   remove what the demo left, the virtual environment, tools and caches"

setup:
	@$(PYTHON) -m setup

demo: setup
	@$(ENV) $(BIN)/python -m demo.story

test: setup
	@$(PYTHON) -m setup.test_tools
	@$(ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Everything named after a fault or an attack, and what is too long for `make test`.
chaos: setup
	@$(PYTHON) -m setup.test_tools
	@$(ENV) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "chaos or fault"
	@$(BIN)/python -m tests.reliability --write

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# As root, on a quiet machine with 40 GiB free. BENCH="--scale 0.05 --rounds 1" is a quick look,
# BENCH="--only storing-postgres" measures one part anew and keeps the figures of the others,
# BENCH=--resume goes on with a run that was killed.
bench: setup
	@$(ENV) $(BIN)/python -m bench $(BENCH)

clean:
	-@$(PYTHON) -m demo.host
	rm -rf .venv .tools .bench .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
	    build lockstep.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
