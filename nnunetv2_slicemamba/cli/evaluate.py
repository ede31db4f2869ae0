"""`slicemamba evaluate`: metrics of a folder of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

PROTOCOLS = ("paper", "per-case")


def add_commands(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS", help="Folder with the predictions.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Folder with the true segmentations.")],
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="paper (pooled over all pixels or voxels) or per-case; default: both."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", help="JSON file; default: slicemamba_metrics.json in PREDICTIONS.")
    ] = None,
    latex: Annotated[Path | None, typer.Option("--latex", help="Write LaTeX tables (booktabs) to this file.")] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option("-djfile", help="dataset.json; default: the one beside the predictions or the truth."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", help="Evaluate these labels, e.g. 1,2,3, in place of dataset.json's classes."),
    ] = None,
    ignore_label: Annotated[
        int | None, typer.Option("--ignore-label", help="Leave out what has this true label; default: dataset.json's.")
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Level of the confidence intervals.")] = 0.95,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Tolerance of NSD, in mm (pixels or voxels for files without spacing).")
    ] = 2.0,
    hd95_one_empty: Annotated[
        str,
        typer.Option(
            "--hd95-one-empty",
            help="HD95 where either truth or prediction is empty: undefined (left out and counted) or diagonal (the "
            "image's).",
        ),
    ] = "undefined",
    surface: Annotated[bool, typer.Option("--surface/--no-surface", help="Compute HD95 and NSD.")] = True,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 0,
    partial: Annotated[
        bool, typer.Option("--chill", help="Leave out cases without a prediction, as in nnU-Net.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option("-np", help="Processes; default: several only where the work is long.")
    ] = None,
) -> None:
    """Compares predictions with the truth: pooled as in the paper, and per case.

    Empty masks: where truth and prediction are both empty, Dice, IoU, HD95 and
    NSD are undefined; the case is left out of their means (as in nnU-Net's
    summary.json) and counted. Where only one is empty, Dice, IoU and NSD are 0,
    and HD95 is undefined unless --hd95-one-empty says otherwise.

    Intervals are BCa bootstrap intervals of the mean over cases. An interrupted
    evaluation continues with the same command.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from nnunetv2_slicemamba.common.folders import InputError, is_writable

    if protocol is not None and protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r} does not exist; give {' or '.join(PROTOCOLS)}")
    shown = PROTOCOLS if protocol is None else (protocol,)
    wanted = _whole_numbers(labels)
    file = output or predictions / "slicemamba_metrics.json"
    if file.suffix != ".json":
        raise InputError(f"-o {file} must end with .json")
    for written in (file, latex):
        if written is not None and written.is_dir():
            raise InputError(f"{written} is a folder; name a file to write to")
        if written is not None and (predictions.is_dir() or written is not file):
            folder = written.absolute().parent
            if not folder.is_dir() or not is_writable(folder):
                raise InputError(f"{written} cannot be written: {folder} is missing or not writable; name another file")

    from nnunetv2_slicemamba.common.whole_file import replacing
    from nnunetv2_slicemamba.evaluation import (
        EvaluationSettings,
        evaluate_folders,
        latex_tables,
        print_evaluation,
        write_json,
    )

    settings = EvaluationSettings(confidence, tolerance, surface and "per-case" in shown, hd95_one_empty, seed=seed)
    journal = file.with_name(f".{file.stem}.partial.jsonl")
    console = Console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase)
            bar.update(tasks[phase], completed=done, total=total)

        try:
            evaluation = evaluate_folders(
                predictions,
                truth,
                settings=settings,
                dataset_json=dataset_json,
                labels=wanted,
                ignore_label=ignore_label,
                partial=partial,
                processes=processes,
                journal=journal,
                progress=progress,
            )
        except KeyboardInterrupt:
            bar.stop()
            bar.console.print("Interrupted: the same command continues after the cases that are done.")
            raise
    write_json(evaluation, file, shown)
    if latex is not None:
        with replacing(latex) as temporary:
            temporary.write_text(latex_tables(evaluation, shown), encoding="utf-8")
    journal.unlink(missing_ok=True)
    print_evaluation(evaluation, console, shown)
    console.print(f"JSON:  {file}", highlight=False, soft_wrap=True)
    if latex is not None:
        console.print(f"LaTeX: {latex}", highlight=False, soft_wrap=True)


def _whole_numbers(labels: list[str] | None) -> list[int] | None:
    from nnunetv2_slicemamba.common.folders import InputError

    if not labels:
        return None
    try:
        return [int(label) for given in labels for label in given.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"--labels {' '.join(labels)} must be whole numbers, e.g. --labels 1,2,3") from error
