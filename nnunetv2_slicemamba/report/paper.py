"""The paper's metrics: pixels of all cases joined into one confusion matrix per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.nnunet_files import SUMMARY_JSON
from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.evaluate import evaluate_folders
from nnunetv2_slicemamba.evaluation.metrics import POOLED_METRICS
from nnunetv2_slicemamba.evaluation.results import EvaluationSettings

from .dataset import DatasetFacts
from .models import SUMMARY, Model
from .results import COUNTS, CaseDice, DiceSummary, key_of

# nnU-Net's prediction writes down here what it was called with
ARGUMENTS, SOURCE = "predict_from_raw_data_args.json", "list_of_lists_or_source_folder"
_LEFT_BESIDE = JsonKind("a JSON file", dict, "Predict again")

NAMES = tuple(metric.pooled_head for metric in POOLED_METRICS)


@dataclass(frozen=True)
class PaperRow:
    """values: per class, in the dataset's order, the paper's metrics in NAMES' order; fractions, NaN if undefined."""

    who: str
    what: str
    cases: int
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class TestSet:
    """A folder of predictions against a truth. low, high: 95% interval of the mean foreground Dice, NaN if none.

    notes: on the Dice. paper_notes: on the paper's metrics. plans_name: of the plans that nnU-Net's prediction left
    beside them, empty without. source: folder of the images that were predicted, as nnU-Net tells it, None if unknown.
    """

    name: str
    predictions: Path
    truth: Path
    scores: DiceSummary
    paper: PaperRow
    low: float
    high: float
    notes: tuple[str, ...]
    paper_notes: tuple[str, ...]
    plans_name: str = ""
    source: Path | None = None


def rates(counts: Counts) -> tuple[float, ...]:
    """The paper's metrics of one class, in NAMES' order."""
    return tuple(metric.function(counts) for metric in POOLED_METRICS)


def validation_rows(model: Model, dataset: DatasetFacts) -> tuple[PaperRow, ...]:
    """A row per validated fold and, for two or more, one over the cases of all.

    The counts are those that nnU-Net's validation kept in summary.json: the same pixels, without reading images again.
    """
    per_fold = {fold.name: fold_counts(fold.folder / SUMMARY, dataset) for fold in model.validated}
    rows = [_row(model.identifier, f"fold {name}", counts) for name, counts in per_fold.items()]
    if len(rows) > 1:
        rows.append(_row(model.identifier, "all folds", [case for counts in per_fold.values() for case in counts]))
    return tuple(rows)


def fold_counts(summary: Path, dataset: DatasetFacts) -> list[tuple[Counts, ...]]:
    """Per case the counts of every class, from a summary.json that read_summary has accepted."""
    entries: Sequence[Mapping[str, Any]] = SUMMARY_JSON.read(summary)["metric_per_case"]
    keys = [key_of(labels, entries[0]["metrics"]) for _, labels in dataset.classes] if entries else []
    return [tuple(Counts(*(int(entry["metrics"][key][name]) for name in COUNTS)) for key in keys) for entry in entries]


def _row(who: str, what: str, cases: Sequence[tuple[Counts, ...]]) -> PaperRow:
    nothing = Counts(0, 0, 0, 0)
    return PaperRow(who, what, len(cases), tuple(rates(sum(column, nothing)) for column in zip(*cases, strict=True)))


def evaluate_test_set(
    predictions: Path,
    truth: Path,
    dataset_json: Path,
    progress: Callable[[str, int, int], None] | None = None,
) -> TestSet:
    """Evaluates a folder of predictions; raises InputError naming what does not fit.

    progress: called with (phase, done, total).
    """
    found = evaluate_folders(
        predictions,
        truth,
        settings=EvaluationSettings(surface=False),
        dataset_json=dataset_json,
        partial=True,
        progress=progress,
    )
    names = [label.name for label in found.classes]
    cases = tuple(
        CaseDice(case.case, case.prediction.name, tuple(case.scores[name].value("dice") for name in names))
        for case in found.cases
    )
    per_class = tuple(found.per_case.summaries[name]["dice"].mean for name in names)
    mean = found.per_case.mean["dice"]
    values = tuple(tuple(found.paper.scores[name][metric.key] for metric in POOLED_METRICS) for name in names)
    row = PaperRow(predictions.name, "test cases", len(cases), values)
    scores = DiceSummary(tuple(sorted(cases, key=lambda case: case.case)), per_class, mean.mean)
    notes, paper_notes = found.notes_for(("per-case",), ("dice",)), found.protocol_notes["paper"]
    return TestSet(
        predictions.name,
        predictions,
        truth,
        scores,
        row,
        mean.low,
        mean.high,
        notes,
        paper_notes,
        str(_told(predictions / "plans.json", "plans_name") or ""),
        Path(source) if isinstance(source := _told(predictions / ARGUMENTS, SOURCE), str) else None,
    )


def _told(file: Path, key: str) -> Any:
    """An entry of a JSON file that nnU-Net's prediction leaves beside its results; None where it cannot be told."""
    if not _LEFT_BESIDE.is_readable(file):
        return None
    return _LEFT_BESIDE.read(file).get(key)
