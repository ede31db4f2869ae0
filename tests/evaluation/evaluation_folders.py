"""Small folders of predictions and truth in nnU-Net's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

LABELS = {"background": 0, "liver": 1, "spleen": 2}


def write_case(folder: Path, case: str, labels: NDArray, spacing: tuple[float, ...] | None = None) -> None:
    """A PNG, or a NIfTI where there is a spacing (per axis of `labels`)."""
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    if spacing:
        image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(folder / f"{case}{'.nii.gz' if spacing else '.png'}"))


def write_dataset_json(folder: Path, labels: Mapping[str, Any] | None = None, ending: str = ".png") -> Path:
    content: dict[str, Any] = {"labels": dict(labels or LABELS), "file_ending": ending, "channel_names": {"0": "CT"}}
    regions = [value for name, value in content["labels"].items() if name not in ("background", "ignore")]
    if any(isinstance(value, list) for value in regions):
        content["regions_class_order"] = list(range(1, len(regions) + 1))
    file = folder / "dataset.json"
    file.write_text(json.dumps(content))
    return file


def random_labels(rng: np.random.Generator, size: tuple[int, ...], n_labels: int) -> NDArray:
    """Blobs rather than noise: every label is a box somewhere."""
    labels = np.zeros(size, dtype=np.uint8)
    for label in range(1, n_labels):
        start = [int(rng.integers(0, length // 2)) for length in size]
        labels[
            tuple(slice(one, one + int(rng.integers(2, length // 2))) for one, length in zip(start, size, strict=True))
        ] = label
    return labels


def write_folders(
    root: Path, cases: int = 6, n_labels: int = 3, seed: int = 0, dataset: bool = True
) -> tuple[Path, Path]:
    """Predictions and truth of PNG cases; in case_1 label 2 is nowhere, in case_2 only the truth has it."""
    rng = np.random.default_rng(seed)
    predictions, truth = root / "predictions", root / "labels"
    for case in range(cases):
        true, predicted = (random_labels(rng, (24, 32), n_labels) for _ in range(2))
        predicted[true > 0] = np.where(rng.random(int((true > 0).sum())) < 0.8, true[true > 0], predicted[true > 0])
        if case == 1:
            true[true == 2] = predicted[predicted == 2] = 0
        if case == 2:
            predicted[predicted == 2] = 0
            true[:3, :3] = 2
        write_case(truth, f"case_{case}", true)
        write_case(predictions, f"case_{case}", predicted)
    if dataset:
        write_dataset_json(root)
    return predictions, truth
