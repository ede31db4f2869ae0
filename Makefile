# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= slicemamba_demo
# one export process each: every worker of nnU-Net imports PyTorch, which costs more than it saves on few cores
export nnUNet_def_n_proc ?= 1
export nnUNet_n_proc_DA ?= 1
# OpenMP threads that spin for long take the cores from those that work
export GOMP_SPINCOUNT ?= 5000

.PHONY: setup demo docs test test-all lint clean

setup: .venv/installed

.venv/installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

demo: setup
	$(BIN)/slicemamba demo --folder $(DEMO)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy nnunetv2_slicemamba trainers search

docs: setup
	$(BIN)/mkdocs build --strict

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

# with the whole matrix of datasets and configurations: some minutes more
test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

clean:
	rm -rf .venv build site *.egg-info
