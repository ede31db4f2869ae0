"""`slicemamba report`: everything there is about a dataset on one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import JUDGE, listed
from nnunetv2_slicemamba.cli.options import Dataset, configuration_option, output_option, text
from nnunetv2_slicemamba.common.console import PlainConsole

EXAMPLES = (
    "slicemamba report -d 501",
    "slicemamba report -d 501 -c 2d --predictions PREDICTIONS -o report.html",
)


def add_commands(app: typer.Typer) -> None:
    app.command("report", **listed(JUDGE, EXAMPLES))(report)


def report(
    dataset: Dataset,
    configurations: Annotated[list[str] | None, configuration_option("Configurations. Default: all.")] = None,
    output: Annotated[
        Path | None,
        output_option(
            "File to write. Default: nnUNet_results/DATASET/report.html, or ./report.html where there are no results."
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        text(
            "--predictions",
            metavar="FOLDER",
            help="Folder of predictions of the test cases; may be given several times.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        text("--truth", metavar="FOLDER", help="Their truth. Default: the dataset's labelsTs in nnUNet_raw."),
    ] = None,
    images: Annotated[
        Path | None,
        text(
            "--images",
            metavar="FOLDER",
            help="Images of the test cases; default: imagesTs of the dataset in nnUNet_raw.",
        ),
    ] = None,
) -> None:
    """Write everything about a dataset on one HTML page.

    The page shows plans, trainings, searches, slicings, Dice and cases, and needs no other file. It works with whatever
    is there and names the commands that make what is missing. No code in a checkpoint is run.
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
