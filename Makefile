# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= slicemamba_demo
CPU_TORCH ?= https://download.pytorch.org/whl/cpu
# one export process each: every worker of nnU-Net imports PyTorch, which costs more than it saves on few cores
export nnUNet_def_n_proc ?= 1
export nnUNet_n_proc_DA ?= 1
# OpenMP threads that spin for long take the cores from those that work
export GOMP_SPINCOUNT ?= 5000

.PHONY: setup demo docs test test-all test-gpu test-slurm lint typed clean

setup: .venv/installed

.venv/made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/installed: setup.py nnunetv2_slicemamba/common/version.py | .venv/made
	@echo "Installing the package and what its tests need into .venv: some minutes."
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@ .venv/runs

# what the demo needs; without an NVIDIA GPU PyTorch's builds for CPUs where they can be had, a tenth of the download
.venv/runs: setup.py nnunetv2_slicemamba/common/version.py | .venv/made
	@echo "Installing the package into .venv: some minutes."
	command -v nvidia-smi > /dev/null || \
		$(BIN)/python -m pip install --quiet --retries 0 --extra-index-url $(CPU_TORCH) torch torchvision || true
	$(BIN)/python -m pip install --quiet -e .
	touch $@

demo: .venv/runs
	$(BIN)/slicemamba demo --folder $(DEMO)

# the installed tree, as links: checkers and the reference cannot follow the mapping of trainers/ and search/ into the package.
# mypy's cache beside them stays: with it a check takes a second instead of half a minute
typed:
	rm -rf build/typed/nnunetv2_slicemamba
	mkdir -p build/typed/nnunetv2_slicemamba
	for one in nnunetv2_slicemamba/* trainers search; do ln -sfn "$(CURDIR)/$$one" build/typed/nnunetv2_slicemamba/; done

lint: setup typed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p nnunetv2_slicemamba
	cd build/typed && ../../$(BIN)/lint-imports --no-cache --config ../../pyproject.toml

docs: setup typed
	$(BIN)/mkdocs build --strict

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

# with the whole matrix of datasets and configurations: some minutes more
test-all: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup

# on a machine with an NVIDIA GPU
test-gpu: setup
	$(BIN)/python -m pytest tests/gpu

# where SLURM is installed (Debian, Ubuntu: apt-get install slurm-wlm munge), a cluster of this machine alone
test-slurm: setup
	$(BIN)/python -m pytest -rs tests/slurm

clean:
	rm -rf .venv build site *.egg-info
