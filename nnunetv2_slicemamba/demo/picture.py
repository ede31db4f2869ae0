"""Picture of test cases: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's colours, for one label each
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")


def read_slice(file: Path) -> NDArray:
    """A 2D array of a 2D image, or of the middle axial slice of a volume."""
    import SimpleITK

    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
    return array if array.ndim == 2 else array[len(array) // 2]


def draw_cases(dataset: Path, predictions: Path, cases: Sequence[str], file_ending: str, output: Path) -> None:
    """Writes a PNG with a row per case: image, truth, prediction as outlines on the image.

    dataset: an nnU-Net raw dataset with imagesTs and labelsTs. predictions: folder of segmentations.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 2.55 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), 3, squeeze=False)
    for row, case in zip(axes, cases, strict=True):
        image = read_slice(dataset / "imagesTs" / f"{case}_0000{file_ending}")
        truth = read_slice(dataset / "labelsTs" / f"{case}{file_ending}")
        labels = (None, truth, read_slice(predictions / f"{case}{file_ending}"))
        for axis, segmentation in zip(row, labels, strict=True):
            axis.imshow(image, cmap="gray", vmin=image.min(), vmax=np.percentile(image, 99.5))
            if segmentation is not None:
                for value in np.unique(segmentation)[1:]:
                    colour = COLOURS[(int(value) - 1) % len(COLOURS)]
                    axis.contour(segmentation == value, levels=[0.5], colors=colour, linewidths=1.0)
            axis.set_axis_off()
        row[0].text(-0.04, 0.5, case, transform=row[0].transAxes, rotation=90, va="center", ha="right", fontsize=8)
    for axis, title in zip(axes[0], ("image", "truth", "prediction"), strict=True):
        axis.set_title(title, fontsize=10)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
