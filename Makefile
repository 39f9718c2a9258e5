# Commands of this project. `make help` lists them.
#
# Each command sets up what it needs first. It uses
#   - the environment of $(PYTHON) as it is, if torch (2.6 or newer), torchvision and Detectron2 are
#     there already (an active virtual environment, a container): only this project and the libraries
#     it lacks, or has in a version too old, are added to it (lint and format: their tools as well,
#     in exact versions);
#   - otherwise a virtual environment .venv in this folder, made with $(PYTHON), with the versions in
#     requirements/ and Detectron2 0.6.
#
# Variables, given as `make test PYTHON=python3.12`:
#   PYTHON         Python to use, 3.10 to 3.12                               (python3)
#   USE_ENV        no: make .venv even if the environment would do           (auto)
#   WORKERS        test processes                                            (auto, at most 4)
#   PYTEST_ARGS    more options for pytest, for example "tests/layers -x"
#   DETECTRON2_SRC folder with a source tree of Detectron2, for test-detectron2-main: used from where
#                  it is, ahead of the installed one, with or without compiled operators
# The build of the operators reads FORCE_CUDA, TORCH_CUDA_ARCH_LIST, MAX_JOBS (see setup.py).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
USE_ENV ?= auto
WORKERS ?= auto
PYTEST_ARGS ?=

VENV := .venv
# Only the commands that run something look at the environment.
ifneq ($(filter-out help clean distclean,$(or $(MAKECMDGOALS),help)),)
  PREFIX := $(shell $(PYTHON) -c 'import sys; print(sys.prefix)' 2>/dev/null)
  ifneq ($(PREFIX),$(CURDIR)/$(VENV))
    ifneq ($(USE_ENV),no)
      HAS_ALL := $(shell $(PYTHON) tools/install_detectron2.py --check >/dev/null 2>&1 && echo yes)
    endif
  endif
endif

ifeq ($(HAS_ALL),yes)
  ENV_PYTHON := $(PYTHON)
  ENV_NAME := $(PREFIX)
  STAMPS := build/stamps$(subst /,-,$(PREFIX))
else
  ENV_PYTHON := $(VENV)/bin/python
  ENV_NAME := $(VENV)
  STAMPS := $(VENV)/stamps
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := $(ENV_PYTHON) -m pip install --no-input
# A person watching sees pip's progress bars during the one long download.
LONG_QUIET := $(if $(CI),-q)

OPERATORS = projects/SparseDETR/sparse_detr/_C$$($(ENV_PYTHON) -c \
  'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
SOURCES := $(shell find csrc -type f 2>/dev/null) setup.py

.PHONY: help
help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: setup  ## train a small Sparse DETR on drawn shapes, evaluate it, draw its predictions
	@$(ENV_PYTHON) tools/run_demo.py

.PHONY: test
test: setup  ## run the tests; what was skipped, and why, is listed at the end
	@$(RUN_PYTEST)

.PHONY: test-detectron2-main
test-detectron2-main: setup  ## run the tests with the Detectron2 sources in DETECTRON2_SRC
	@if [ ! -f "$(DETECTRON2_SRC)/detectron2/__init__.py" ]; then \
	  echo "DETECTRON2_SRC='$(DETECTRON2_SRC)' has no detectron2/__init__.py." \
	    "Give a source tree of Detectron2: make test-detectron2-main DETECTRON2_SRC=FOLDER" >&2; exit 2; fi
	@export PYTHONPATH="$$(cd "$(DETECTRON2_SRC)" && pwd)$${PYTHONPATH:+:$$PYTHONPATH}"; \
	  $(ENV_PYTHON) -c 'import detectron2; print("Detectron2 under test:", detectron2.__file__)'; \
	  $(RUN_PYTEST)

.PHONY: lint
lint: setup $(STAMPS)/lint  ## check style, types, spelling
	@echo "ruff";          $(ENV_PYTHON) -m ruff check .
	@echo "ruff format";   $(ENV_PYTHON) -m ruff format --check .
	@echo "mypy --strict"; $(ENV_PYTHON) -m mypy
	@echo "codespell";     $(CODESPELL)
	@echo "clang-format";  $(CXX_FILES) | xargs -0 -r "$(CLANG_FORMAT)" --dry-run --Werror

.PHONY: format
format: setup $(STAMPS)/lint  ## put the code in the format that lint wants
	@$(ENV_PYTHON) -m ruff check --fix .
	@$(ENV_PYTHON) -m ruff format .
	@$(CXX_FILES) | xargs -0 -r "$(CLANG_FORMAT)" -i

.PHONY: gpu-check
gpu-check: setup  ## check the CUDA operators on this machine's GPU
	@$(ENV_PYTHON) tools/gpu_check.py

.PHONY: setup
setup: $(STAMPS)/project  ## set up the environment and build the operators
	@echo "Environment ready: $(ENV_NAME)"

.PHONY: clean
clean:  ## remove what was built here and the tools' caches
	@rm -rf build dist projects/SparseDETR/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -f projects/SparseDETR/sparse_detr/_C*.so $(VENV)/stamps/project
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean  ## also remove .venv
	@rm -rf $(VENV)

# ---------------------------------------------------------------------------------------------
# One thread per process: the tests' tensors are small, and the processes share the cores.
RUN_PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(ENV_PYTHON) -m pytest -q --durations=10 \
  -n $(WORKERS) --maxprocesses=4 $(PYTEST_ARGS)
CODESPELL = $(ENV_PYTHON) -m codespell_lib \
  $(wildcard configs csrc docs projects tests tools *.md *.py Makefile NOTICE)
# The package brings the program, not a module: it is where the environment has its programs.
CLANG_FORMAT = $$($(ENV_PYTHON) -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/clang-format
CXX_FILES = find csrc -type f \( -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' \) -print0

$(STAMPS)/environment:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)'. Name a Python 3.10 to 3.12: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "Python 3.10 to 3.12 is needed, '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>&1 || true). Choose one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
ifneq ($(HAS_ALL),yes)
	@echo "Setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Making $(VENV) failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(PIP_INSTALL) -q --upgrade pip
else
	@echo "Using the environment $(ENV_NAME) as it is (USE_ENV=no makes $(VENV) instead)"
endif
	@mkdir -p $(@D) && touch $@

$(STAMPS)/torch: requirements/torch.txt $(STAMPS)/environment
ifneq ($(HAS_ALL),yes)
	@echo "Setting up $(VENV): $$(grep -o '^torch==.*' $<) and its CUDA libraries" \
	  "(about 5 GB on disk; a few minutes)"
	@$(PIP_INSTALL) $(LONG_QUIET) -r $<
endif
	@touch $@

# The lines of requirement files whose package is not there, or older than the line's lower bound. A
# newer one than the upper bound stays: an environment that is used as it is must not be set back.
define PRINT_LACKING
import re, sys
from importlib.metadata import PackageNotFoundError, version
for line in (line.strip() for file in sys.argv[1:] for line in open(file, encoding="utf-8")):
    if line and not line.startswith("#"):
        lowest = re.search(r">=([\d.]+)", line)
        wanted = [int(part) for part in lowest[1].split(".")] if lowest else []
        try:
            found = [int(part) for part in re.findall(r"\d+", version(re.match(r"[\w-]+", line)[0]))]
        except PackageNotFoundError:
            found = None
        if found is None or found < wanted:
            print(line)
endef
export PRINT_LACKING

$(STAMPS)/libraries: requirements/build.txt requirements/test.txt $(STAMPS)/torch
ifneq ($(HAS_ALL),yes)
	@echo "Setting up $(ENV_NAME): build and test tools"
	@$(PIP_INSTALL) -q -r requirements/build.txt -r requirements/test.txt
else
	@$(ENV_PYTHON) -c "$$PRINT_LACKING" requirements/build.txt requirements/test.txt > $@.txt
	@if [ -s $@.txt ]; then \
	  echo "Setting up $(ENV_NAME): build and test tools that it lacks ($$(paste -sd ' ' $@.txt))"; \
	  $(PIP_INSTALL) -q -r $@.txt; fi
endif
	@touch $@

$(STAMPS)/detectron2: tools/install_detectron2.py tools/detectron2_replacements.py $(STAMPS)/libraries
	@$(ENV_PYTHON) tools/install_detectron2.py
	@touch $@

$(STAMPS)/lint: requirements/lint.txt $(STAMPS)/libraries
	@echo "Setting up $(ENV_NAME): lint tools"
	@$(PIP_INSTALL) -q -r requirements/lint.txt
	@touch $@

# The editable install finds Python files and configs where they are; only the operators need a
# rebuild, when their sources or the variables that steer the build change.
$(STAMPS)/project: $(SOURCES) $(STAMPS)/libraries $(STAMPS)/build-options | $(STAMPS)/detectron2
	@echo "Setting up $(ENV_NAME): this project, compiling its operators (about a minute)"
	@rm -f $(OPERATORS)  # an older build must not pass for this one
	@$(PIP_INSTALL) -qq --no-build-isolation -e .
	@[ -e $(OPERATORS) ] || \
	  echo "No operators were compiled (no C++ compiler?): the pure-torch path is used, which is slower"
	@touch $@

BUILD_OPTIONS := $(FORCE_CUDA)|$(TORCH_CUDA_ARCH_LIST)|$(CUDA_HOME)|$(CXX)|$(SPARSE_DETR_NO_EXTENSION)
.PHONY: always
$(STAMPS)/build-options: always $(STAMPS)/environment
	@echo '$(BUILD_OPTIONS)' | cmp -s - $@ || echo '$(BUILD_OPTIONS)' > $@
