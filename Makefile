# `make help` lists the targets. Works with GNU make 3.81 (macOS) and newer.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help install install-gpu quickstart explorer test test-unit test-gpu check format lock bench compose clean FORCE

# The first Python that is new enough; `make PYTHON=/path/to/python3.12 ...` names another.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
endif

# An environment is built again when its locks, Python or the clone's path change: the stamp's name
# contains a checksum of these. The metadata of qcrd itself has a separate stamp.
PYTHON_VERSION := $(shell $(or $(PYTHON),false) -c 'import sys; print(*sys.version_info[:2], sep=".")')
key = $(shell { echo $(CURDIR) $(PYTHON_VERSION); cat requirements/torch.txt $(1); } | cksum | cut -d' ' -f1)
MAIN_LOCKS := requirements/main.lock requirements/dev.lock
MAIN := .venv/.installed-$(call key,$(MAIN_LOCKS))
QCRD := .venv/.qcrd-$(shell cksum < pyproject.toml | cut -d' ' -f1)
# cpu or gpu: `make install` keeps the installed build, `make install-gpu` changes it.
VLLM_BUILD := $(if $(wildcard .venv-vllm/.installed-gpu-*),gpu,cpu)
VLLM := .venv-vllm/.installed-$(VLLM_BUILD)-$(call key,requirements/vllm.lock)

PIP := -m pip --disable-pip-version-check -qq install --no-compile
# Compiled here on all cores, because pip uses one, and the first run would wait for it. Files that
# are seldom imported are skipped. Some files are for other Pythons and cannot compile: no error.
COMPILE := -m compileall -q -j 0 -x '/(tests?|testing|models)/'

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile \
	| while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

install: FORCE ## Make .venv and .venv-vllm, about 3 minutes; at once if they exist
	@$(MAKE) -s --no-print-directory -j 2 $(QCRD) $(VLLM)
	$(if $(filter install,$(MAKECMDGOALS)),@echo '. .venv/bin/activate && qcrd --help')

install-gpu: ## The same for a CUDA machine: PyPI's torch and vllm, several GB
	@$(MAKE) -s --no-print-directory install VLLM_BUILD=gpu
	@$(has_gpu)

quickstart: install ## From questions to a student on this machine; FRESH=1 samples everything live
	.venv/bin/qcrd run --config configs/quickstart.yaml \
	$(if $(FRESH),'teacher.reuse=[]' run.store=.qcrd/quickstart-fresh)

explorer: install ## See every rationale in a browser, of the quickstart or of STORE=path
	.venv/bin/qcrd explore $(or $(STORE),.qcrd/quickstart)

test: install ## All tests, real vLLM, DeepSpeed and Prefect included; 20 minutes on two cores
	.venv/bin/python -m pytest -n 2 --dist loadfile  # two, because engines take several GiB each

test-unit: $(QCRD) ## The tests without an engine or a server
	.venv/bin/python -m pytest -n 2 --dist worksteal tests/unit

test-gpu: install ## The tests that need a CUDA device
	@$(has_gpu)
	.venv/bin/python -m pytest -m gpu

check: $(QCRD) ## Format, lint, types, import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: $(QCRD) ## Rewrite the files in the project's format
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock: $(QCRD) ## Resolve requirements/*.in to *.lock again (Python 3.11, a CPU torch, 2 minutes)
	.venv/bin/python requirements/lock.py

bench: install ## The benchmarks, one after the other, half an hour
	.venv/bin/python -m benchmarks.training_step
	.venv/bin/python -m benchmarks.dss_training
	.venv/bin/python -m benchmarks.negatives
	.venv/bin/python -m benchmarks.sampling

compose: .env ## PostgreSQL, Prefect and a worker in containers; PROFILE=gpu
	docker compose --profile $(or $(PROFILE),cpu) up --build --detach
	@echo "The UI, http://127.0.0.1:4200/deployments, asks for the PREFECT_AUTH of .env."

# The passwords of docker-compose.yml.
.env:
	@umask 077; for name in PREFECT_AUTH=qcrd: POSTGRES_PASSWORD=; do \
		echo "$$name$$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; done > $@

clean: ## Remove both environments and all caches; keep the stores of runs
	rm -rf .venv .venv-vllm *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Kept: .qcrd and every other store."

has_gpu = .venv/bin/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit( \
	"torch must see a CUDA device; got " + torch.__version__ + ". Run `make install-gpu` on a machine" \
	" with one; if pip is set to a CPU index there, run `make clean` and unset it first.")'

$(MAIN): | python
	@echo "[.venv] 1/3 torch: 200 MB (CPU build) or 3 GB (CUDA), by the index that pip is set to"
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python $(PIP) -r requirements/torch.txt
	@echo "[.venv] 2/3 $$(cat $(MAIN_LOCKS) | grep -c ==) locked packages, 1 to 2 minutes"
	@.venv/bin/python $(PIP) --no-deps -r requirements/main.lock -r requirements/dev.lock
	@echo "[.venv] 3/3 compiling them, half a minute"
	@.venv/bin/python $(COMPILE) .venv/lib > /dev/null || true
	@touch $@

$(VLLM): | python
	@echo "[.venv-vllm] 1/3 torch"
	@$(PYTHON) -m venv --clear .venv-vllm
ifeq ($(VLLM_BUILD),gpu)
	@echo "[.venv-vllm] 2/3 vllm and its requirements, 5 to 15 minutes"
	@.venv-vllm/bin/python $(PIP) -r requirements/torch.txt vllm==0.32.0
else
	@.venv-vllm/bin/python $(PIP) -r requirements/torch.txt
	@echo "[.venv-vllm] 2/3 $$(grep -c == requirements/vllm.lock) locked packages, 1 to 2 minutes"
	@.venv-vllm/bin/python $(PIP) --no-deps -r requirements/vllm.lock
endif
	@echo "[.venv-vllm] 3/3 compiling them, half a minute"
	@.venv-vllm/bin/python $(COMPILE) .venv-vllm/lib > /dev/null || true
	@touch $@

$(QCRD): $(MAIN)
	@echo "[.venv] qcrd itself, from this folder"
	@.venv/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@.venv/bin/python -m flows.server.app  # a new database for Prefect, beside vLLM's installation
	@rm -f .venv/.qcrd-*
	@touch $@

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "qcrd needs Python 3.11 or newer; none was found on PATH." \
		"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
