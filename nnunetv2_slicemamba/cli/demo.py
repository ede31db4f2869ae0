"""`slicemamba demo`: the whole chain on shipped images, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import Device
from nnunetv2_slicemamba.common.console import PlainConsole


def add_commands(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    data: Annotated[str, typer.Option("--data", help="2d: nuclei in fluorescence; 3d: hippocampus in MRI.")] = "2d",
    folder: Annotated[Path, typer.Option("--folder", help="Where everything is written.")] = Path("slicemamba_demo"),
    device: Device = "auto",
) -> None:
    """Plans, trains, searches, retrains and predicts on shipped real images, with small settings and two folds.

    The same command continues a demo that was stopped.
    """
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.demo.layout import DATASETS
    from nnunetv2_slicemamba.planning.selection import choose_device

    if data not in DATASETS:
        raise InputError(f"--data is {data!r}; give one of {', '.join(DATASETS)}")
    chosen = choose_device(device).type
    from nnunetv2_slicemamba.demo.run import run_demo

    run_demo(data, folder, chosen, PlainConsole())
