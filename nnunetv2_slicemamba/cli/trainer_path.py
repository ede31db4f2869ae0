"""`slicemamba trainer-path`: the folder for nnUNet_extTrainer."""

from __future__ import annotations

import typer

from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER


def add_commands(app: typer.Typer) -> None:
    app.command("trainer-path")(trainer_path)


def trainer_path() -> None:
    """Prints the folder for nnUNet_extTrainer: export nnUNet_extTrainer="$(slicemamba trainer-path)"."""
    typer.echo(EXT_TRAINER_FOLDER)
