# The same commands for a person and for CI. PYTHON chooses the interpreter: `make test PYTHON=python3.13`. Where .venv is
# of another version already, that version gets an environment of its own.
PYTHON ?= python3
VERSION = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifeq ($(call VERSION,$(PYTHON)),)
$(error there is no $(PYTHON) on this machine; name another: make PYTHON=python3.12)
endif
OTHER := $(if $(filter command environment,$(origin PYTHON)),$(filter-out $(call VERSION,.venv/bin/python),$(call VERSION,$(PYTHON))))
VENV := $(if $(and $(OTHER),$(wildcard .venv/bin/python)),.venv-$(OTHER),.venv)
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test chaos check format bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## install what is missing and start the laboratory on http://127.0.0.1:8000
	@$(BIN)/escala demo

test: $(VENV)/.dev ## run the tests on the real engines
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

chaos: $(VENV)/.dev ## the long forms of the tests that kill, harass and replace under load (about 7 minutes)
	@CHAOS=1 CHAOS_KILLS=16 SLOW_CONNECTIONS=1000 $(BIN)/python -m pytest tests/laboratory/test_kill.py \
		tests/gateway/test_hostile.py tests/supervisor/test_signals.py tests/supervisor/changes/test_end_to_end.py \
		tests/cache/test_processes.py tests/tasks/worker/test_deaths.py

check: $(VENV)/.dev ## formatting, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## format and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.bench ## measure start-up and memory, gateway, cache, jobs and laboratory against their peers, scaling, failures
	@$(BIN)/python -m benchmarks.footprint
	@$(BIN)/python -m benchmarks.gateway
	@$(BIN)/python -m benchmarks.failover
	@$(BIN)/python -m benchmarks.scaling
	@$(BIN)/python -m benchmarks.hostile
	@$(BIN)/python -m benchmarks.cache
	@$(BIN)/python -m benchmarks.jobs
	@$(BIN)/python -m benchmarks.system

clean: ## remove the virtual environment and caches (data of the demo stays)
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Escala needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing Escala and its engines into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "installing what Escala is compared with into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing Escala and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.demo
