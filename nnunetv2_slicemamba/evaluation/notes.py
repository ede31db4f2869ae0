"""Notes: what a reader of the results has to know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.evaluation.checks import Checked
from nnunetv2_slicemamba.evaluation.labels import Labelling
from nnunetv2_slicemamba.evaluation.metrics import MASK_METRICS, METRICS
from nnunetv2_slicemamba.evaluation.pairs import Pairs, listed, look_swapped
from nnunetv2_slicemamba.evaluation.results import CaseResult, EvaluationSettings, PerCaseResult, pixels

FEW_CASES = 10


def notes_on_input(
    predictions: Path,
    truth: Path,
    pairs: Pairs,
    checked: Sequence[Checked],
    dataset_json: Path | None,
    labels_given: bool,
) -> list[str]:
    """Notes on the files, for every protocol: what was left out, guessed or looks wrong without being an error."""
    notes = []
    if look_swapped(predictions, truth):
        notes.append(
            f"{truth} looks like a folder of predictions: the order is PREDICTIONS TRUTH, "
            "nnUNetv2_evaluate_folder has it the other way round"
        )
    if pairs.missing:
        notes.append(f"{_left_out(len(pairs.missing), 'case', 'without a prediction')}: {listed(pairs.missing)}")
    if pairs.extra:
        notes.append(f"{_left_out(len(pairs.extra), 'prediction', 'without a truth')}: {listed(pairs.extra)}")
    if pairs.other:
        names = listed([str(file) for file in pairs.other], 3)
        which = "with another ending than the cases'"
        notes.append(f"{_left_out(len(pairs.other), 'file', which)}: {names}")
    if dataset_json is None and not labels_given:
        notes.append("there is no dataset.json: the labels that the files hold are the classes")
        notes.extend(_one_sided(checked))
    shifted = [one.case for one in checked if one.shifted]
    if shifted:
        notes.append(
            f"origin or direction of truth and prediction differ in {count(len(shifted), 'case')} and were taken for "
            f"the same: {listed(shifted)}"
        )
    return notes


def notes_on_means(cases: Sequence[CaseResult], labelling: Labelling) -> list[str]:
    """Notes on the means over classes, which every protocol has."""
    return [
        f"{one.name} occurs neither in the truth nor in the predictions: the mean leaves it out"
        for one in labelling.classes
        if len(labelling.classes) > 1 and all(case.scores[one.name].both_empty for case in cases)
    ]


def notes_on_paper(cases: Sequence[CaseResult], labelling: Labelling) -> list[str]:
    """Notes on the pooled metrics: where these data differ from the paper's."""
    notes = []
    if len({case.shape for case in cases}) > 1:
        notes.append(
            "the images differ in size, so that large ones weigh more in the pooled metrics; the paper pools images of "
            "256x256 pixels"
        )
    if len(labelling.classes) > 1:
        notes.append("the paper pools one foreground class; here each class is pooled against all others")
    return notes


def notes_on_metrics(per_case: PerCaseResult, settings: EvaluationSettings) -> dict[str, tuple[str, ...]]:
    """Notes of the metrics on their values in the cases, by the metric's key: of each class that calls for one."""
    found: dict[str, tuple[str, ...]] = {}
    for key in per_case.mean:
        note = METRICS[key].note
        if note is not None:
            notes = (note(name, summaries[key], settings) for name, summaries in per_case.summaries.items())
            found[key] = tuple(one for one in notes if one)
    return found


def notes_on_cases(cases: Sequence[CaseResult], labelling: Labelling, settings: EvaluationSettings) -> list[str]:
    """Notes on the metrics per case as a whole."""
    notes = []
    if settings.surface and labelling.ignore_label is not None:
        *titles, last = [metric.title for metric in MASK_METRICS]
        listed_titles = f"{', '.join(titles)} and {last}" if titles else last
        notes.append(
            f"for {listed_titles}, {pixels(cases)} with the ignore label are background in truth and prediction"
        )
    if len(cases) == 1:
        notes.append("there is one case, so there are no intervals of a mean over cases")
    elif len(cases) < FEW_CASES:
        notes.append(f"bootstrap intervals from {len(cases)} cases are rough, and rather too narrow")
    return notes


def _left_out(number: int, noun: str, which: str) -> str:
    return f"{count(number, noun)} {which} {'is' if number == 1 else 'are'} left out"


def _one_sided(checked: Sequence[Checked]) -> list[str]:
    truth = frozenset[int]().union(*(one.truth_labels for one in checked)) - {0}
    predicted = frozenset[int]().union(*(one.prediction_labels for one in checked)) - {0}
    return [
        f"the labels {sorted(only)} occur only in the {where}"
        for only, where in ((truth - predicted, "truth"), (predicted - truth, "predictions"))
        if only
    ]
