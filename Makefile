# qcrd: `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
MAIN_INPUTS := requirements/torch.txt requirements/main.lock requirements/dev.lock pyproject.toml
MAIN_STAMP := .venv/.installed-$(shell cat $(MAIN_INPUTS) | cksum | cut -d' ' -f1)
VLLM_INPUTS := requirements/torch.txt requirements/vllm.lock
VLLM_STAMP := .venv-vllm/.installed-$(shell cat $(VLLM_INPUTS) | cksum | cut -d' ' -f1)

.PHONY: help install test check format

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(MAIN_STAMP) $(VLLM_STAMP) ## Install .venv and .venv-vllm (done already: at once).

$(MAIN_STAMP): $(MAIN_INPUTS)
	@echo "Installing .venv: torch, then $$(grep -c == requirements/main.lock) locked packages. Minutes, once."
	@rm -f .venv/.installed-*
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --no-compile -r requirements/torch.txt
	.venv/bin/pip install --quiet --no-compile --no-deps -r requirements/main.lock -r requirements/dev.lock
	.venv/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	@echo "Compiling bytecode: every later import is twice as fast."
	.venv/bin/python -m compileall -q -j0 .venv/lib >/dev/null || true
	@touch $@

$(VLLM_STAMP): $(VLLM_INPUTS)
	@echo "Installing .venv-vllm: torch, then $$(grep -c == requirements/vllm.lock) locked packages. Minutes, once."
	@rm -f .venv-vllm/.installed-*
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --no-compile -r requirements/torch.txt
	.venv-vllm/bin/pip install --quiet --no-compile --no-deps -r requirements/vllm.lock
	@echo "Compiling bytecode: every later import is twice as fast."
	.venv-vllm/bin/python -m compileall -q -j0 .venv-vllm/lib >/dev/null || true
	@touch $@

test: install ## Install if needed, then run all tests.
	.venv/bin/python -m pytest

check: $(MAIN_STAMP) ## Format, lint, types, import contracts.
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: $(MAIN_STAMP) ## Rewrite the files in the one format.
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
