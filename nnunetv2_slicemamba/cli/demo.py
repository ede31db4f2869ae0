"""`slicemamba demo`: the whole chain on shipped images, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import SET_UP, listed
from nnunetv2_slicemamba.cli.options import Device, choice, text
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.verbosity import progress_console

EXAMPLES = (
    "slicemamba demo",
    "slicemamba demo --data 3d --folder demo3d -device cpu",
)


def add_commands(app: typer.Typer) -> None:
    app.command("demo", **listed(SET_UP, EXAMPLES))(demo)


def demo(
    data: Annotated[
        str, choice("--data", names=("2d", "3d"), help="2d: nuclei in fluorescence. 3d: hippocampus in MRI.")
    ] = "2d",
    folder: Annotated[Path, text("--folder", metavar="FOLDER", help="Where everything is written.")] = Path(
        "slicemamba_demo"
    ),
    device: Device = "auto",
) -> None:
    """Run the whole chain on shipped images, in minutes.

    It plans, trains, searches, retrains and predicts with small settings and two folds. The same command continues a
    demo that was stopped.
    """
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.demo.layout import DATASETS
    from nnunetv2_slicemamba.planning.selection import choose_device

    if data not in DATASETS:
        raise InputError(f"--data is {data!r}; give one of {', '.join(DATASETS)}")
    # loading PyTorch takes seconds
    progress_console().print(f"The demo works in {folder}; the same command continues one that was stopped")
    chosen = choose_device(device).type
    from nnunetv2_slicemamba.demo.run import run_demo

    run_demo(data, folder, chosen, PlainConsole())
