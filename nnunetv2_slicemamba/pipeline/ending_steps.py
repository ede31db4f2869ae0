"""Steps after all folds: the ensemble's predictions of imagesTs, their evaluation, and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.folders import InputError, require_folder
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
from nnunetv2_slicemamba.pipeline.step import Command, Finished, Step, unfinished
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import Selection

METRICS_FILE = "slicemamba_metrics.json"  # of `slicemamba evaluate`
_PREDICTED = "predict_from_raw_data_args.json"  # nnU-Net writes it beside its predictions


def ending_steps(selections: Sequence[Selection], settings: RunSettings, after: Sequence[str]) -> list[Step]:
    """Prediction and evaluation as far as there are test cases and their truth, then the report.

    selections: one per fold, of one configuration. after: names of the folds' last steps. Raises InputError for a
    second stage of a cascade, whose predictions need those of its first stage.
    """
    first = selections[0]
    # without plans, a job that makes them comes first, and asks this again
    if first.plans and first.configuration_manager.previous_stage_name is not None:
        raise InputError(
            f"--predict cannot predict with {first.configuration}, which reads its first stage's predictions; predict "
            "with nnUNetv2_predict -prev_stage_predictions"
        )
    finals = [FoldFolder(selection, settings.trainer) for selection in selections]
    raw = require_folder("nnUNet_raw") / first.dataset
    folder = predictions_folder(selections, settings)
    steps: list[Step] = []

    def add(kind: str, look: Callable[[], Command | Finished]) -> None:
        follows = (steps[-1].name,) if steps else tuple(after)
        steps.append(Step(kind, "", kind, follows, look))

    if test_cases(raw):
        add("predict", lambda: prediction_needed(finals, raw, folder, settings))
        if any((raw / "labelsTs").glob("*")):
            add("evaluate", lambda: evaluation_needed(folder, raw))
    add("report", lambda: report_needed(finals, folder if test_cases(raw) else None))
    return steps


def predictions_folder(selections: Sequence[Selection], settings: RunSettings) -> Path:
    """The folder of the ensemble's predictions, beside the folds: predictions/folds_0_1."""
    name = "_".join(["folds", *(str(selection.fold) for selection in selections)])
    return selections[0].configuration_folder(settings.trainer) / "predictions" / name


def test_cases(raw: Path) -> int:
    """Number of cases in imagesTs of a raw dataset."""
    description = DATASET_JSON.read_if_there(raw / "dataset.json")
    return 0 if description is None else len(list((raw / "imagesTs").glob(f"*_0000{description['file_ending']}")))


def prediction_needed(
    finals: Sequence[FoldFolder], raw: Path, folder: Path, settings: RunSettings
) -> Command | Finished:
    """The command that predicts imagesTs; Finished if every case was predicted after the last of the trainings."""
    ending = DATASET_JSON.read(raw / "dataset.json")["file_ending"]
    done = len(list(folder.glob(f"*{ending}")))
    if done >= test_cases(raw) and _is_newer(folder / _PREDICTED, [final.checkpoint for final in finals]):
        return Finished(f"{count(done, 'case')} in {folder}")
    selection = finals[0].selection
    arguments = (
        *("-d", selection.dataset, "-i", str(raw / "imagesTs"), "-o", str(unfinished(folder))),
        *("-c", selection.configuration, "-p", selection.plans_name, "-tr", settings.trainer),
        *("-f", *(str(final.selection.fold) for final in finals), "-device", settings.device),
    )
    return Command("nnUNetv2_predict", arguments, makes=folder)


def evaluation_needed(folder: Path, raw: Path) -> Command | Finished:
    """The command that evaluates the ensemble's predictions."""
    file = folder / METRICS_FILE
    if file.is_file():  # predictions that are made anew take its place
        return Finished(str(file))
    return Command("slicemamba", ("evaluate", str(folder), str(raw / "labelsTs")))


def report_needed(finals: Sequence[FoldFolder], predictions: Path | None) -> Command | Finished:
    """The command that writes the dataset's report; Finished if it is newer than all that this run has made."""
    selection = finals[0].selection
    file = selection.results_folder / "report.html"
    made = [final.summary for final in finals]
    if predictions is not None:
        made += [path for path in (predictions / _PREDICTED, predictions / METRICS_FILE) if path.is_file()]
    if _is_newer(file, made):
        return Finished(str(file))
    shown = () if predictions is None else ("--predictions", str(predictions))
    return Command("slicemamba", ("report", "-d", selection.dataset, *shown))


def _is_newer(file: Path, others: Sequence[Path]) -> bool:
    """Whether a file is there, and was written after all the others, which must be there too."""
    if not all(path.is_file() for path in (file, *others)):
        return False
    return all(file.stat().st_mtime_ns >= other.stat().st_mtime_ns for other in others)
