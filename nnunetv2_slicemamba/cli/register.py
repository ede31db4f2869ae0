"""`slicemamba register`: nnU-Net finds our trainers and planners for good."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import SET_UP, listed
from nnunetv2_slicemamba.cli.options import flag
from nnunetv2_slicemamba.common.registration import nnunet_folder, unregister
from nnunetv2_slicemamba.common.registration import register as write_shims

EXAMPLES = (
    "slicemamba register",
    "slicemamba register --undo",
)


def add_commands(app: typer.Typer) -> None:
    app.command("register", **listed(SET_UP, EXAMPLES))(register)


def register(
    undo: Annotated[bool, flag("--undo", help="Remove what register wrote.")] = False,
) -> None:
    """Let nnU-Net find the trainers and planners for good.

    It writes two small files into nnU-Net's own folder.
    """
    nnunet = nnunet_folder()
    if not undo:
        for file in write_shims(nnunet):
            typer.echo(f"wrote {file}")
        typer.echo("nnU-Net now finds the trainers (-tr) and planners (-pl) by name; undo: slicemamba register --undo")
        return
    removed = unregister(nnunet)
    for file in removed:
        typer.echo(f"removed {file}")
    if not removed:
        typer.echo(f"nothing to remove: no file of 'slicemamba register' in {nnunet}")
