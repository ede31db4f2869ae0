"""`slicemamba report`: everything there is about a dataset on one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import Dataset
from nnunetv2_slicemamba.common.console import PlainConsole


def add_commands(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    dataset: Dataset,
    configurations: Annotated[list[str] | None, typer.Option("-c", help="Configurations; default: all.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", help="File to write; default: nnUNet_results/DATASET/report.html, or ./report.html without results."
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option("--predictions", help="Folder of predictions of the test cases; may be given several times."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Their truth; default: labelsTs of the dataset in nnUNet_raw.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Images of the test cases; default: imagesTs of the dataset in nnUNet_raw."),
    ] = None,
) -> None:
    """Writes one self-contained HTML page about a dataset: plans, trainings, searches, slicings, Dice, cases.

    It works with whatever is there and names the commands that get what is missing. Nothing in a checkpoint is run.
    """
    from nnunetv2_slicemamba.report import ReportSettings, write_report

    settings = ReportSettings(
        dataset=dataset,
        configurations=tuple(configurations) if configurations else None,
        predictions=tuple(predictions or ()),
        truth=truth,
        output=output,
        images=images,
    )
    console = PlainConsole()
    file = write_report(settings, console)
    console.print(f"Report: {file} ({file.stat().st_size / 1e6:.1f} MB)")
