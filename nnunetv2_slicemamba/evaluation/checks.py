"""Checks of all pairs before anything is computed: every file is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.nnunet_readers import Reader
from nnunetv2_slicemamba.evaluation.pairs import Pair, listed
from nnunetv2_slicemamba.evaluation.reading import Segmentation, read_segmentation

MOST_SHOWN = 20
WHITE = ("truth", [255])  # of masks that were not converted
# spacings are stored as float32 in some headers; origins are compared in mm (a tenth of a micrometre)
SPACING_TOLERANCE = 1e-3
GEOMETRY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CheckJob:
    """A pair to check. known: labels that may occur, None if any may."""

    pair: Pair
    reader: Reader
    known: tuple[int, ...] | None


@dataclass(frozen=True)
class Checked:
    """A pair as found by its check.

    problems: sentences, empty if the pair can be compared. shifted: whether origin or direction differ.
    """

    case: str
    problems: tuple[str, ...]
    shape: tuple[int, ...] = ()
    has_spacing: bool = True
    truth_labels: frozenset[int] = frozenset()
    prediction_labels: frozenset[int] = frozenset()
    shifted: bool = False


def check_pair(job: CheckJob) -> Checked:
    """Reads both files of a pair and compares their shapes, spacings and labels."""
    problems: list[str] = []
    read: dict[str, Segmentation] = {}
    for what, file in (("truth", job.pair.truth), ("prediction", job.pair.prediction)):
        try:
            read[what] = read_segmentation(file, job.reader)
        except (ValueError, OSError) as error:
            problems.append(f"{what} {file.name} {error}")
    found: dict[str, frozenset[int]] = {}
    for what, segmentation in read.items():
        found[what] = frozenset(int(label) for label in np.unique(segmentation.labels))
        unknown = sorted(found[what] - set(job.known)) if job.known is not None else []
        if unknown:
            remedy = "; take the masks of labelsTs, where convert wrote 1 for 255" if (what, unknown) == WHITE else ""
            known = list(job.known or ())
            problems.append(f"the {what} has the labels {unknown[:8]}, dataset.json knows {known}{remedy}")
    if len(read) < 2:
        return Checked(job.pair.case, tuple(problems))
    truth, prediction = read["truth"], read["prediction"]
    if truth.labels.shape != prediction.labels.shape:
        unit = "voxels" if max(truth.labels.ndim, prediction.labels.ndim) > 2 else "pixels"
        problems.append(f"the prediction has {_size(prediction)} {unit}, the truth {_size(truth)}")
    elif truth.spacing and prediction.spacing and not _close(truth.spacing, prediction.spacing, SPACING_TOLERANCE):
        problems.append(f"the prediction's spacing is {prediction.spacing}, the truth's {truth.spacing}")
    shifted = any(
        not np.allclose(truth.geometry[key], prediction.geometry[key], atol=GEOMETRY_TOLERANCE)
        for key in truth.geometry.keys() & prediction.geometry.keys()
        if len(truth.geometry[key]) == len(prediction.geometry[key])
    )
    return Checked(
        job.pair.case,
        tuple(problems),
        truth.labels.shape,
        truth.spacing is not None or prediction.spacing is not None,
        found["truth"],
        found["prediction"],
        shifted,
    )


def refuse_problems(checked: Sequence[Checked], missing: Sequence[str] = ()) -> None:
    """InputError that lists what is wrong with all pairs, if anything is. missing: cases without a prediction."""
    lines = [f"{one.case}: {problem}" for one in checked for problem in one.problems]
    if missing:
        lines.insert(
            0, f"without a prediction: {listed(missing)}; predict them, or evaluate only the others with --chill"
        )
    if not lines:
        return
    more = [f"and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    cases = len(missing) + sum(bool(one.problems) for one in checked)
    shown = "\n  ".join([*lines[:MOST_SHOWN], *more])
    raise InputError(
        f"{cases} of {len(checked) + len(missing)} cases cannot be evaluated, nothing was computed:\n  {shown}"
    )


def _size(segmentation: Segmentation) -> str:
    return "x".join(map(str, segmentation.labels.shape))


def _close(one: tuple[float, ...], other: tuple[float, ...], relative: float) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=relative, atol=0)
