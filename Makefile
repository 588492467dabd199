# Everything happens in .venv, with the versions of constraints.txt. `make PYTHON=python3.12` uses another interpreter.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

CPP := $(wildcard cuda_ext/csrc/*.* cuda_ext/csrc/*/*.* tests/cuda_on_cpu/*.h tests/cuda_on_cpu/*.cpp tests/cuda_on_cpu/cub/device/*)
# Tests of a browser, and of programs that are killed: others beside them would take their time.
ALONE := tests/browser tests/test_app_training.py
# What to say where something is missing that only the system can provide.
NO_PYTHON := Python 3.11 or newer is needed; if it has another name: make PYTHON=/path/to/python3
NO_VENV := $(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv
NO_HEADERS := the headers of $(PYTHON) are missing; on Debian or Ubuntu: apt install python3-dev
NO_COMPILER := a C++20 compiler is needed; on Debian or Ubuntu: apt install g++

.PHONY: help setup demo test lint format bench bench-check bench-baseline clean

help:
	@echo "make demo    train the sample capture, write splat.ply and report.html"
	@echo "make test    run the tests"
	@echo "make setup   only install into .venv; the others do this first"
	@echo "make lint    check format, style and types; 'make format' mends the format"
	@echo "make bench   run the benchmarks; 'make bench-check' compares with the baseline, 'make bench-baseline' sets it"
	@echo "make clean   remove what was built (not .venv, not runs/)"

setup: .venv/installed

demo: setup
	$(BIN)/anchorfield demo assets/sample

test: setup
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest -q $(ALONE)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p anchorfield
	$(BIN)/mypy bench
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP)

bench: setup
	$(BIN)/python -m bench
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.layouts

bench-check: setup
	$(BIN)/python -m bench.check

# For every instruction set that this processor runs.
bench-baseline: setup
	for set in $$($(BIN)/python -c 'from anchorfield.cuda_ext import native; print(*native.instruction_sets())'); do \
	  $(BIN)/python -m bench.check --update --instruction-set $$set || exit 1; done

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .venv/installed

# The environment: newer than what it is made from. --group is known to pip from 25.1 on.
.venv/tools: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(NO_VENV)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(PIP) --group dev
	@touch $@

# The package, editable: Python files are used where they lie, C++ is compiled again when it changes. scikit-build-core
# says whether it also needs CMake or Ninja from PyPI because the system has none, or too old ones.
.venv/installed: .venv/tools CMakeLists.txt $(CPP)
	@command -v $${CXX:-c++} >/dev/null || { echo "$(NO_COMPILER)" >&2; exit 1; }
	@$(BIN)/python -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
	  || { echo "$(NO_HEADERS)" >&2; exit 1; }
	$(PIP) pip $$($(BIN)/python -c 'import scikit_build_core.build as b; print(*b.get_requires_for_build_editable())')
	$(PIP) --no-build-isolation --config-settings=build-dir=build/dev --editable .
	@touch $@
