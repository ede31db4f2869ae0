"""The package offers what it names, and costs nothing that a training does not need."""

import os
import subprocess
import sys

import nnunetv2_slicemamba.search as search


def test_every_exported_name_is_there():
    assert all(hasattr(search, name) for name in search.__all__)
    assert search.__all__ == sorted(search.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


def test_importing_it_imports_neither_torch_nor_optuna_nor_matplotlib():
    """A training imports it to find its slicing; an error in an unneeded library must not stop nnU-Net's look-up."""
    code = (
        "import sys, nnunetv2_slicemamba.search; "
        "print([m for m in ('torch', 'optuna', 'matplotlib', 'sqlalchemy', 'nnunetv2') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert printed.stdout.strip() == "[]"
