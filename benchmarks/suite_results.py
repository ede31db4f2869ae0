"""Tables of the recommended network beside nnU-Net's default on the five data sets of the suite, short and long."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np
from numpy.typing import NDArray
from results import Row
from scipy import stats
from trainings import NOT_RUN, Table, Trainings, finished, markdown, mean_dice

from nnunetv2_slicemamba.comparison.statistics import dice_of_cases, pooled_spread, spread

SETS = {
    "kvasir-998": "Kvasir",
    "clinicdb-609": "ClinicDB",
    "isic2017-1000": "ISIC 2017",
    "acdc-60": "ACDC",
    "hippocampus-260": "hippocampus",
}
VOLUMES = ("acdc-60", "hippocampus-260")
NNUNET, RECOMMENDED, WITHOUT_SCANS = "stock-gpu", "recommended", "recommended-noscan"
# a network is a candidate of accuracy.py, or another one in 2D and in 3D, where its blocks are half as wide
CANDIDATES = {
    RECOMMENDED: ("res-s3-from4-adamw", "res-s3-from4-expand1-adamw"),
    WITHOUT_SCANS: ("res-s3-from4-noscan-adamw", "res-s3-from4-expand1-noscan-adamw"),
}
NETWORKS = {
    RECOMMENDED: "recommended",
    WITHOUT_SCANS: "the same without scans",
    "res-conv-adamw": "nnU-Net's network, our optimiser",
    NNUNET: "nnU-Net's default",
}
# where a residual network has S3 blocks: the network with scans, and the same without them
DESIGNS = {
    "from stride 8 on": ("res-s3-adamw", "res-s3-noscan-adamw"),
    "from stride 4 on": ("res-s3-from4-adamw", "res-s3-from4-noscan-adamw"),
    "from stride 4 on, half as wide in 3D (recommended)": (RECOMMENDED, WITHOUT_SCANS),
    "from stride 4 on, in the decoder too": ("res-s3-from4-decoder-adamw", "res-s3-from4-decoder-noscan-adamw"),
}
# nnU-Net's default with augmentation on the GPU and on the CPU
AUGMENTATIONS = {
    "clinicdb-609": ("stock-gpuaugment", "stock-cpuaugment"),
    "acdc-60": (NNUNET, "stock"),
    "hippocampus-260": (NNUNET, "stock"),
}
SHORT = 20  # epochs
LONG = (
    *(("acdc-60", 100), ("clinicdb-609", 100), ("hippocampus-260", 100)),
    *(("hippocampus-260", 1000), ("acdc-60", 250)),
)
NOT_TRAINED = "not trained"
RESAMPLES = 9999
Folds = dict[int, list[Row]]


@dataclass(frozen=True)
class Beside:
    """Difference between two networks in Dice points. low, high: its 95 % interval over the cases, NaN if unknown."""

    points: float
    low: float
    high: float

    @property
    def text(self) -> str:
        interval = "" if math.isnan(self.low) else f" ({self.low:+.2f} to {self.high:+.2f})"
        return f"{self.points:+.2f}{interval}"


def candidate_of(network: str, data: str) -> str:
    """The candidate that a network is on a dataset."""
    return CANDIDATES[network][data in VOLUMES] if network in CANDIDATES else network


def words_of(candidate: str, data: str) -> str:
    """Name of a candidate in tables: the words of the network that it is on a dataset, else its own."""
    return next((words for name, words in NETWORKS.items() if candidate_of(name, data) == candidate), candidate)


def trained(
    trainings: Trainings, data: str, epochs: int, networks: Iterable[str] = tuple(NETWORKS)
) -> dict[str, Folds]:
    """Finished trainings of some networks on a dataset, by network and fold."""
    runs = [row for row in trainings.runs if (row["data"], row["epochs"]) == (data, str(epochs))]
    found = finished(row for row in runs if row["iterations"] == "250")
    candidates = {name: candidate_of(name, data) for name in networks}
    return {name: found[candidate] for name, candidate in candidates.items() if candidate in found}


def dice(folds: Folds) -> float:
    """Mean Dice in percent; every fold counts alike."""
    return 100 * fmean(mean_dice(runs) for runs in folds.values())


def pairs_of(own: Folds, theirs: Folds) -> list[tuple[list[Row], list[Row]]]:
    """The trainings of two candidates on the folds that both have."""
    return [(own[fold], theirs[fold]) for fold in sorted(own) if fold in theirs]


def points_beside(found: dict[str, Folds], name: str, other: str = NNUNET) -> float:
    """Dice points by which a network is above another one on the folds that both were trained on; NaN without any."""
    pairs = pairs_of(found.get(name, {}), found.get(other, {}))
    return 100 * fmean(mean_dice(one) - mean_dice(two) for one, two in pairs) if pairs else math.nan


def beside(trainings: Trainings, found: dict[str, Folds], name: str, other: str = NNUNET) -> Beside | None:
    """A network beside another one on the folds that both were trained on; None without any."""
    pairs = pairs_of(found.get(name, {}), found.get(other, {}))
    if not pairs:
        return None
    known = trainings.difference(pairs)
    low, high = (math.nan, math.nan) if known is None else (known.low, known.high)
    return Beside(points_beside(found, name, other), 100 * low, 100 * high)


@functools.cache
def mean_beside(trainings: Trainings, name: str, other: str = NNUNET) -> Beside | None:
    """A network beside another one in the mean of the sets, each counting alike; None if one is not trained.

    The interval is a bootstrap (BCa) that draws cases in every set apart.
    """
    by_set = [trained(trainings, data, SHORT, (name, other)) for data in SETS]
    each = [points_beside(found, name, other) for found in by_set]
    if any(math.isnan(points) for points in each):
        return None
    points = fmean(each)
    tables = [trainings.paired(pairs_of(found[name], found[other])) for found in by_set]
    known = [pair for pair in tables if pair is not None]
    low, high = _bounds(known) if len(known) == len(SETS) else (math.nan, math.nan)
    return Beside(points, 100 * low, 100 * high)


def over_sets(trainings: Trainings, name: str, other: str = NNUNET) -> str:
    """95 % t-interval of a mean difference over the sets, as a sample of all data; "-" if a training is missing.

    It has the noise between trainings in it.
    """
    each = [points_beside(trained(trainings, data, SHORT, (name, other)), name, other) for data in SETS]
    if any(math.isnan(points) for points in each):
        return "-"
    half = stats.t.ppf(0.975, len(each) - 1) * stdev(each) / math.sqrt(len(each))
    return f"{fmean(each) - half:+.2f} to {fmean(each) + half:+.2f}"


def _bounds(pairs: Sequence[tuple[Table, Table]]) -> tuple[float, float]:
    def statistic(*cases: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        drawn = zip(pairs, cases, strict=True)
        return np.mean([dice_of_cases(one, c) - dice_of_cases(other, c) for (one, other), c in drawn], axis=0)

    everything = tuple(np.arange(one.shape[-1]) for one, _ in pairs)
    more = {"n_resamples": RESAMPLES, "batch": 500, "method": "BCa", "random_state": np.random.default_rng(0)}
    found = stats.bootstrap(everything, statistic, vectorized=True, **more).confidence_interval
    return float(found.low), float(found.high)


def short(trainings: Trainings) -> str:
    """The networks on the five sets: nnU-Net's Dice, the others' differences, and the spread between trainings."""
    by_set = {data: trained(trainings, data, SHORT) for data in SETS}
    lines = []
    for name, words in NETWORKS.items():
        if name == NNUNET:
            means = [dice(found[NNUNET]) if NNUNET in found else None for found in by_set.values()]
            cells = [NOT_TRAINED if mean is None else f"Dice {mean:.2f}" for mean in means]
            whole = [mean for mean in means if mean is not None]
            mean = f"Dice {fmean(whole):.2f}" if len(whole) == len(SETS) else "-"
            lines.append((words, *cells, mean, "", _number(by_set, name)))
            continue
        each = [_cell(trainings, found, name) for found in by_set.values()]
        mean = mean_beside(trainings, name)
        overall = ("-" if mean is None else mean.text, over_sets(trainings, name))
        lines.append((words, *each, *overall, _number(by_set, name)))
    ours, *controls = NETWORKS
    for control, words in zip(controls, ("what the scans add", "what the blocks add"), strict=False):
        added = [beside(trainings, found, ours, control) for found in by_set.values()]
        mean = mean_beside(trainings, ours, control)
        overall = (mean.text if mean else "-", over_sets(trainings, ours, control), "")
        lines.append((words, *(one.text if one else "-" for one in added), *overall))
    sds = [_between_trainings(found) for found in by_set.values()]
    # that of the mean of one training on each set; NaN if it is unknown for a set
    sds.append(math.hypot(*sds) / len(SETS))
    lines.append(("SD between trainings", *("-" if math.isnan(sd) else f"{sd:.2f}" for sd in sds), "", ""))
    return markdown(("network", *SETS.values(), "mean", "mean, over sets", "trainings per set"), lines)


def confirmed(trainings: Trainings) -> str:
    """`short` of the folds on which nothing was chosen."""
    others = trainings.on_folds(first=False)
    trained_on = [data for data in SETS if trained(others, data, SHORT)]
    return short(others) if trained_on else NOT_RUN


def designs(trainings: Trainings) -> str:
    """Table of the designs: the gain by scans on every set, and the networks beside nnU-Net's default."""
    lines = []
    for words, (name, without) in DESIGNS.items():
        by_set = {data: trained(trainings, data, SHORT, (name, without)) for data in SETS}
        added = [beside(trainings, found, name, without) for found in by_set.values()]
        means = [mean_beside(trainings, *pair) for pair in ((name, without), (name,), (without,))]
        numbers = f"{_number(by_set, name)}; {_number(by_set, without)}"
        cells = [one.text if one else "-" for one in (*added, *means)]
        cells.insert(len(SETS) + 1, over_sets(trainings, name, without))
        lines.append((words, *cells, numbers))
    head = (
        "S3 blocks",
        *SETS.values(),
        "mean",
        "mean, over sets",
        "with scans, to nnU-Net",
        "without, to nnU-Net",
        "trainings per set: with; without",
    )
    return markdown(head, lines)


def augmentations(trainings: Trainings) -> str:
    """Table of nnU-Net's default with either augmentation: the Dice of each training, and their difference."""
    lines = []
    for data, names in AUGMENTATIONS.items():
        found = trained(trainings, data, SHORT, names)
        each = [", ".join(f"{dice({0: [row]}):.2f}" for row in found.get(name, {}).get(0, [])) for name in names]
        one, sd = beside(trainings, found, *names), _between_trainings(found)
        noise = "-" if math.isnan(sd) else f"{sd:.2f}"
        lines.append((SETS[data], *(text or NOT_TRAINED for text in each), one.text if one else "-", noise))
    head = ("data", "on the GPU", "on the CPU", "difference", "SD between trainings")
    return markdown(head, lines)


def _cell(trainings: Trainings, found: dict[str, Folds], name: str) -> str:
    if name not in found:
        return NOT_TRAINED
    one = beside(trainings, found, name)
    if one is None:
        return f"Dice {dice(found[name]):.2f}"
    return one.text


def _number(by_set: Mapping[str, dict[str, Folds]], name: str) -> str:
    """The number of a network's trainings on a set, or the least and the most of them."""
    numbers = [sum(map(len, found[name].values())) if name in found else 0 for found in by_set.values()]
    return " to ".join(map(str, sorted({min(numbers), max(numbers)})))


def _between_trainings(found: dict[str, Folds]) -> float:
    """SD of the Dice of trainings alike, in points, pooled over networks and folds; NaN if none has two."""
    groups = [[100 * float(row["dice"]) for row in runs] for folds in found.values() for runs in folds.values()]
    return pooled_spread(groups)[0]


def hours(runs: Sequence[Row]) -> float:
    """Hours of a training by its median epoch; NaN where none was timed."""
    seconds = [float(row["epoch_seconds"]) * int(row["epochs"]) for row in runs if row["epoch_seconds"]]
    return median(seconds) / 3600 if seconds else math.nan


def long(trainings: Trainings) -> str:
    """The trainings of full length, fold by fold, beside nnU-Net's default on the same folds."""
    head = ("data", "network", "epochs", "Dice of the folds", "mean ± SD over folds", "to nnU-Net, same folds", "hours")
    lines = []
    for data, epochs in LONG:
        found = trained(trainings, data, epochs)
        for name, words in NETWORKS.items():
            if name not in found:
                continue
            folds = found[name]
            means = {fold: 100 * mean_dice(runs) for fold, runs in sorted(folds.items())}
            sd = spread(list(means.values()))
            mean = f"{fmean(means.values()):.2f}" + ("" if math.isnan(sd) else f" ± {sd:.2f}")
            each = ", ".join(f"{value:.2f} ({fold})" for fold, value in means.items())
            one = None if name == NNUNET else beside(trainings, found, name)
            took = hours([row for runs in folds.values() for row in runs])
            time = "-" if math.isnan(took) else f"{took:.1f}"
            lines.append((SETS[data], words, str(epochs), each, mean, "-" if one is None else one.text, time))
    return markdown(head, lines)
