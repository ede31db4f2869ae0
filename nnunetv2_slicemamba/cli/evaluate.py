"""`slicemamba evaluate`: metrics of a folder of predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunetv2_slicemamba.cli.help import JUDGE, Command, listed
from nnunetv2_slicemamba.cli.options import (
    choice,
    flag,
    number,
    output_option,
    processes_option,
    seed_option,
    text,
    whole,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.verbosity import is_quiet

LARGEST_LABEL = 65535  # of the 16-bit images that hold labels


EXAMPLES = (
    "slicemamba evaluate PREDICTIONS TRUTH",
    "slicemamba evaluate PREDICTIONS TRUTH --protocol per-case -o metrics.json --latex table.tex",
)


class CommandWithMetrics(Command):
    """Command whose help ends with the list of metrics, made only when help is asked for: it imports NumPy."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Metrics, empty masks included"):
            formatter.write_dl(metric_rows())
        super().format_epilog(ctx, formatter)


def add_commands(app: typer.Typer) -> None:
    app.command("evaluate", **listed(JUDGE, EXAMPLES, CommandWithMetrics))(evaluate)


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="Folder with the predictions.", show_default=False)
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Folder with the true segmentations.", show_default=False)
    ],
    protocol: Annotated[
        str | None,
        choice(
            "--protocol",
            names=("paper", "per-case"),
            help="paper: pooled over all pixels or voxels. Default: both.",
        ),
    ] = None,
    output: Annotated[
        Path | None, output_option("JSON file to write. Default: slicemamba_metrics.json in PREDICTIONS.")
    ] = None,
    latex: Annotated[
        Path | None, text("--latex", metavar="FILE", help="Write LaTeX tables (booktabs) to this file.")
    ] = None,
    dataset_json: Annotated[
        Path | None,
        text(
            *("-djfile", "--dataset-json"),
            metavar="FILE",
            help="dataset.json. Default: the one beside the predictions or the truth.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        text("--labels", metavar="N,N,...", help="Labels to evaluate, in place of dataset.json's classes."),
    ] = None,
    ignore_label: Annotated[
        int | None,
        whole(
            "--ignore-label",
            least=0,
            most=LARGEST_LABEL,
            help="Ignore voxels whose true label is this. Default: the ignore label in dataset.json.",
        ),
    ] = None,
    confidence: Annotated[
        float, number("--confidence", above=0, below=1, help="Level of the confidence intervals.")
    ] = 0.95,
    tolerance: Annotated[
        float,
        number(
            "--tolerance",
            metavar="MM",
            least=0,
            most=1e6,
            help="Tolerance of NSD; pixels or voxels for files without spacing.",
        ),
    ] = 2.0,
    hd95_one_empty: Annotated[
        str,
        choice(
            "--hd95-one-empty",
            names=("undefined", "diagonal"),
            help="HD95 where either truth or prediction is empty: undefined (left out and counted), or the image's "
            "diagonal.",
        ),
    ] = "undefined",
    surface: Annotated[
        bool,
        flag("--surface/--no-surface", help="Also compute the metrics of masks (HD95, NSD), which take longest."),
    ] = True,
    seed: Annotated[int, seed_option("Seed of the bootstrap.")] = 0,
    partial: Annotated[bool, flag("--chill", help="Leave out cases without a prediction, as in nnU-Net.")] = False,
    processes: Annotated[
        int | None, processes_option("Processes. Default: several only where the work is long.")
    ] = None,
) -> None:
    """Compare predictions with the truth.

    Metrics are pooled as in the paper, and per case. A case in which a metric is undefined is left out of its mean (as
    in nnU-Net's summary.json) and counted. Intervals are BCa bootstrap intervals of the mean over cases. The same
    command continues an interrupted evaluation.
    """
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.evaluation.results import PROTOCOLS

    if protocol is not None and protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r} does not exist; give {' or '.join(PROTOCOLS)}")
    shown = tuple(PROTOCOLS) if protocol is None else (protocol,)
    wanted = _whole_numbers(labels)
    file = output or predictions / "slicemamba_metrics.json"
    _refuse_outputs(predictions, file, latex, output is not None)

    from nnunetv2_slicemamba.common.whole_file import replacing
    from nnunetv2_slicemamba.evaluation import (
        EvaluationSettings,
        evaluate_folders,
        latex_tables,
        print_evaluation,
        write_evaluation,
    )

    settings = EvaluationSettings(confidence, tolerance, surface and "per-case" in shown, hd95_one_empty, seed=seed)
    journal = file.with_name(f".{file.stem}.partial.jsonl")
    console = PlainConsole()
    with _progress_bar() as progress:
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
    write_evaluation(evaluation, file, shown)
    if latex is not None:
        with replacing(latex) as temporary:
            temporary.write_text(latex_tables(evaluation, shown), encoding="utf-8")
    journal.unlink(missing_ok=True)
    print_evaluation(evaluation, console, shown)
    console.print(f"JSON:  {file}")
    if latex is not None:
        console.print(f"LaTeX: {latex}")


def metric_rows() -> list[tuple[str, str]]:
    """Name and definition of every metric, for the help."""
    from nnunetv2_slicemamba.evaluation.metrics import METRICS, CountMetric, MaskMetric

    rows = []
    for metric in METRICS.values():
        facts = []
        if isinstance(metric, CountMetric) and metric.pooled:
            facts.append(f"pooled as {metric.pooled_title}" if metric.pooled_title else "pooled")
        if isinstance(metric, MaskMetric):
            facts.append("of masks")
        if not metric.higher_is_better:
            facts.append("lower is better")
        rows.append((metric.title, f"{metric.definition} ({', '.join(facts)})" if facts else metric.definition))
    return rows


def _refuse_outputs(predictions: Path, file: Path, latex: Path | None, named: bool) -> None:
    """InputError if one of the files cannot be written, or would replace another. named: whether -o names `file`."""
    from nnunetv2_slicemamba.common.folders import InputError, is_writable
    from nnunetv2_slicemamba.common.outputs import require_output
    from nnunetv2_slicemamba.evaluation.latex import FIRST_LINE

    if named:
        require_output(file, "-o", ".json", b'"schema": ')
    if latex is not None:
        require_output(latex, "--latex", ".tex", FIRST_LINE.encode())
    for written in (file, latex):
        if written is not None and written.is_dir():
            raise InputError(f"{written} is a folder; name a file to write to")
        if written is not None and (predictions.is_dir() or written is not file):
            folder = written.absolute().parent
            if not folder.is_dir() or not is_writable(folder):
                raise InputError(f"{written} cannot be written: {folder} is missing or not writable; name another file")


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on standard error, driven by a function of (phase, done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=PlainConsole(stderr=True), transient=True, disable=is_quiet()) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done, total=total)

        yield progress


def _whole_numbers(labels: list[str] | None) -> list[int] | None:
    from nnunetv2_slicemamba.common.folders import InputError

    if not labels:
        return None
    try:
        return [int(label) for given in labels for label in given.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"--labels {' '.join(labels)} must be whole numbers, e.g. --labels 1,2,3") from error
