"""`slicemamba trainer-path`: the folder for nnUNet_extTrainer."""

from __future__ import annotations

import typer

from nnunetv2_slicemamba.cli.help import SET_UP, listed
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER

EXAMPLES = (
    "slicemamba trainer-path",
    'export nnUNet_extTrainer="$(slicemamba trainer-path)"',
)


def add_commands(app: typer.Typer) -> None:
    app.command("trainer-path", **listed(SET_UP, EXAMPLES))(trainer_path)


def trainer_path() -> None:
    """Print the folder for nnUNet_extTrainer.

    nnU-Net finds the trainers there, without `slicemamba register`.
    """
    typer.echo(EXT_TRAINER_FOLDER)
