# Everything runs in a private environment, .venv, made from the hash-locked dependencies.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help venv demo test check audit lock docs clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(VENV)/.stamp  ## make the private environment

$(VENV)/.stamp: container/dev.lock container/cpu.lock container/torch.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("giblet-hpc needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r container/dev.lock
	@# Without CUDA where pip is offered such a build, as from download.pytorch.org: it is smaller.
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r container/cpu.lock \
		2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps --require-hashes \
		-r container/torch.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: venv  ## a synthetic study from raw files to a scored model and its report
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash configs/demo.sh

test: venv  ## all checks and all test tiers that run on this machine
	slurm/testcluster/install.sh
	container/testbed/install.sh
	$(MAKE) --no-print-directory check
	BIN=$(BIN) bash tests/run.sh $(PYTEST_ARGS)

check: venv  ## lint, types, layers, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

docs: venv  ## write docs/reference from the schema and the command line
	$(BIN)/python docs/make_reference.py

audit:  ## look up all locked packages in the database of known vulnerabilities (needs internet)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet --no-deps --require-hashes \
		-r container/audit.lock
	for lock in cuda torch run dev audit; do $(VENV)-audit/bin/pip-audit --strict --disable-pip \
		--require-hashes -r container/$$lock.lock || exit 1; done

lock:  ## renew the lock files
	container/lock.sh

clean:  ## remove the environment and the demo's files
	rm -rf $(VENV) $(VENV)-audit demo
