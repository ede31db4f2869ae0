"""Table of the published experiment: the published figures, and the trainings of paper.csv beside them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from results import Row
from suite_results import words_of
from trainings import NOT_RUN, markdown

from nnunetv2_slicemamba.evaluation.metrics import POOLED_METRICS

SUPERNET, NNUNET, RECOMMENDED = "supernet", "nnunet", "recommended"
SEARCHED = "searched"
# name: the slicing of the paper's network, if it is fixed, and words for the table
ARMS: dict[str, tuple[Any, str]] = {
    SUPERNET: (None, "supernet of the paper's network, its first path"),
    SEARCHED: (None, "the paper's network, searched slicing"),
    "fixed": ([2, 4], "the paper's network, 2x4 in every block"),
    "thickness1": ([1, 1], "the paper's network, thickness 1: VM-UNet's scan"),
    RECOMMENDED: (None, "the recommended network"),
    NNUNET: (None, "nnU-Net's default network"),
}
METRICS = tuple(metric.pooled_head.lower() for metric in POOLED_METRICS)  # miou, dsc, acc, spe, sen
# from the paper; both start from ImageNet weights
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "isic2017": {"SliceMamba": (81.70, 89.93, 96.75, 98.30, 88.81), "VM-UNet": (80.23, 89.03)},
    "kvasir": {"SliceMamba": (87.37, 93.26, 98.01, 99.10, 91.80), "VM-UNet": (78.66, 88.05)},
}


def table(rows: Sequence[Row]) -> str:
    """A table per set of test images: every arm with the mean of its trainings beside the published figures."""
    head = (
        "network",
        "protocol",
        "trainings",
        *(metric.pooled_head for metric in POOLED_METRICS),
        "DSC of each training",
    )
    head = (*head, "DSC, lowest rate", "DSC, epoch chosen on the test images")
    if not any(row["state"] == "finished" for row in rows):
        return NOT_RUN
    parts = []
    for test in ("isic2017", "kvasir", "clinicdb"):
        lines: list[Sequence[str]] = []
        for name, figures in PUBLISHED.get(test, {}).items():
            shown = [f"{value:.2f}" for value in figures] + ["-"] * (len(METRICS) - len(figures))
            lines.append((name, "as published, pretrained", "-", *shown, "-", "-", f"{figures[1]:.2f}"))
        done = [row for row in rows if row["test"] == test and row["state"] == "finished" and row["arm"] != SUPERNET]
        budgets = dict.fromkeys((row["arm"], row["protocol"], row["epochs"]) for row in done)
        for arm, protocol, epochs in budgets:
            own = [row for row in done if (row["arm"], row["protocol"], row["epochs"]) == (arm, protocol, epochs)]
            means = [f"{statistics.fmean(float(row[key]) for row in own):.2f}" for key in METRICS]
            each = ", ".join(f"{float(row['dsc']):.2f}" for row in own)
            low, chosen = (
                ", ".join(f"{float(row[key]):.2f}" for row in own if row[key]) or "-"
                for key in ("low_dsc", "chosen_dsc")
            )
            words = ARMS[arm][1] if arm in ARMS else words_of(arm, test)
            lines.append((words, f"{protocol}'s, {epochs} epochs", str(len(own)), *means, each, low, chosen))
        trained = {row["arm"] for row in done}
        missing = [words for arm, (_, words) in ARMS.items() if arm not in trained and arm != SUPERNET]
        lines += [(words, "paper's", "not trained", *["-"] * (len(METRICS) + 3)) for words in missing]
        parts += [f"**{test}**", markdown(head, lines)]
    return "\n\n".join(parts)
