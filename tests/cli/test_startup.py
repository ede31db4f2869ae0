"""Commands import what they need and no more: PyTorch, nnU-Net's trainer and the compiler take seconds each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.roles import ROLES

SLOW = ("torch", "torch._dynamo", "nnunetv2.training", "scipy", "matplotlib", "optuna")
CALLS = """
import contextlib, io
from nnunetv2_slicemamba.cli.main import app, main
def call(*arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(arguments)
"""


def slow_modules_after(code: str) -> list[str]:
    """Names of SLOW that a process of its own has imported once `code` has run."""
    ending = f"\nimport sys\nprint(*[name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_no_help_imports_what_is_slow() -> None:
    helps = "import typer\nfor name in typer.main.get_command(app).commands: call(name, '--help')\n"
    assert slow_modules_after(f"{CALLS}call('--help'); call('--version')\n{helps}") == []


def test_a_slicing_is_set_and_a_run_is_shown_without_pytorch(workspace: Path) -> None:
    fold = "'-d', '901', '-c', '2d', '-f', '0', '-p', 'nnUNetSliceMambaSPlans'"
    code = f"{CALLS}call('slicing', {fold}, '--set', '2x4'); call('status', '-d', '901')"
    assert slow_modules_after(code) == []
    assert list(workspace.rglob("slicings/*/fold_0.json"))


def test_networks_do_not_import_the_compiler() -> None:
    assert slow_modules_after("import nnunetv2_slicemamba.nets, nnunetv2_slicemamba.ops") == ["torch"]


def test_the_roles_that_are_known_without_the_trainers_are_theirs() -> None:
    assert {name: trainer.role for name, trainer in TRAINERS.items()} == ROLES
