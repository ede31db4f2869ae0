"""Which metrics are there, what are they called, and what do they mean?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """key: name in results and JSON. title: column head. is_fraction: 0..1, shown in percent; else a length.

    higher_is_better: the direction of improvement. definition: one sentence, empty masks included.
    """

    key: str
    title: str
    is_fraction: bool
    higher_is_better: bool
    definition: str


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("dice", "Dice", True, True, "2TP/(2TP+FP+FN); undefined if truth and prediction are empty, 0 if one is"),
        Metric("iou", "IoU", True, True, "TP/(TP+FP+FN); undefined if truth and prediction are empty, 0 if one is"),
        Metric("accuracy", "Acc", True, True, "(TP+TN)/(TP+TN+FP+FN), this class against all others"),
        Metric("specificity", "Spe", True, True, "TN/(TN+FP); undefined if the class fills the truth"),
        Metric("sensitivity", "Sen", True, True, "TP/(TP+FN); undefined if the truth is empty"),
        Metric(
            "hd95",
            "HD95",
            False,
            False,
            "95th percentile of the distances between the two borders, the larger of both directions; undefined if "
            "truth and prediction are empty, and also if only one is, unless that is to count as the image's diagonal",
        ),
        Metric(
            "nsd",
            "NSD",
            True,
            True,
            "share of both borders, by length or area, that lies within the tolerance of the other one; undefined if "
            "truth and prediction are empty, 0 if one is",
        ),
    )
}

COUNT_METRICS = ("dice", "iou", "accuracy", "specificity", "sensitivity")
SURFACE_METRICS = ("hd95", "nsd")

# in the order and with the names of the paper's tables; its mIoU is the IoU of the foreground (see confusion.py)
PAPER_METRICS: dict[str, str] = {
    "iou": "mIoU",
    "dice": "DSC",
    "accuracy": "Acc",
    "specificity": "Spe",
    "sensitivity": "Sen",
}
