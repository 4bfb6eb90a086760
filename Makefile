# `make` alone lists the targets. TORCH=cpu|cuda picks torch's build on Linux; without it the plain pin is installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROFILE ?= ci
DEVICE ?= cpu
SEED ?= 0
JOBS ?= 2
TORCH ?=
ENV := $(VENV)/.ready$(TORCH)
# On Linux the plain pin is the CUDA build already; cpu asks PyTorch's own index for the small one.
TORCH_INDEX = $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)

.DEFAULT_GOAL := help
.PHONY: help book chapter test lab bench data weights lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | expand -t 10

$(ENV): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m ipykernel install --sys-prefix --name netatlas --display-name netatlas > /dev/null
	@touch $@

book: $(ENV)  ## execute, validate and render what is stale; PROFILE=gpu DEVICE=cuda for the GPU run
	@$(BIN)/netatlas build --profile $(PROFILE) --device $(DEVICE) --seed $(SEED) --jobs $(JOBS)

chapter: $(ENV)  ## execute and validate one chapter: make chapter X=merging
	@$(BIN)/netatlas build --profile $(PROFILE) --device $(DEVICE) --seed $(SEED) --chapter $(X)

test: book  ## everything: the book, the kernels, the claims, the pipeline, the pages in a browser
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

lab: $(ENV)  ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab chapters

bench: $(ENV)  ## time each hot kernel beside what a user would pick instead
	@$(BIN)/python benchmarks/run.py $(ARGS)

data: $(ENV)  ## list the data sets and verify those that are here
	@$(BIN)/netatlas data list && $(BIN)/netatlas data verify

weights: $(ENV)  ## train stored weights again: make weights NAME=...
	@$(BIN)/netatlas weights train $(NAME) --device $(DEVICE) --seed $(SEED)

lock: $(ENV)  ## make requirements.lock anew from pyproject.toml
	$(BIN)/python tools/lock.py

clean:  ## remove what was built; the environment stays
	rm -rf build .snakemake .pytest_cache .mypy_cache .ruff_cache
