"""Segmentations as read by nnU-Net's own readers, without axes of one pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from numpy.typing import NDArray

from nnunetv2_slicemamba.common.nnunet_readers import Reader, reason_of
from nnunetv2_slicemamba.common.silence import silently


@dataclass(frozen=True)
class Segmentation:
    """A label map. labels: (*shape) int32, 2D or 3D. spacing: per axis, None if the file has none (pixels count then).

    geometry: origin, direction or affine, whatever of them the format has.
    """

    labels: NDArray[np.int32]
    spacing: tuple[float, ...] | None
    geometry: Mapping[str, tuple[float, ...]]


def read_segmentation(file: Path, reader: Reader) -> Segmentation:
    """Reads one label map. Raises ValueError saying what is wrong with it, OSError if there is no such file.

    Axes of one pixel are dropped as long as two remain: nnU-Net's 2D images have one, and in a volume that is a single
    slice every pixel would lie on the border.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    try:
        with silently():
            array, properties = reader().read_seg(str(file))
    except Exception as error:  # every format has its own exceptions
        raise ValueError(f"cannot be read by {reader.__name__}: {reason_of(error)}") from error
    if array.ndim != 4 or array.shape[0] != 1:
        raise ValueError(f"has {array.shape[0]} channels, a segmentation has one")
    labels = array[0].astype(np.int32)
    if not np.array_equal(labels, array[0]):
        raise ValueError("holds values that are not whole numbers; is it an image or a probability map?")
    spacing = None if _has_no_spacing(file, reader) else properties["spacing"]
    kept = _kept_axes(labels.shape)
    geometry = {
        key: tuple(float(number) for number in np.ravel(value))
        for stuff in ("sitk_stuff", "nibabel_stuff")
        for key, value in properties.get(stuff, {}).items()
        if key != "spacing"
    }
    return Segmentation(
        labels.reshape([labels.shape[axis] for axis in kept]),
        None if spacing is None else tuple(float(spacing[axis]) for axis in kept),
        geometry,
    )


def _has_no_spacing(file: Path, reader: Reader) -> bool:
    if issubclass(reader, NaturalImage2DIO):
        return True
    # nnU-Net keeps a TIFF's spacing in a file of its own beside it
    return issubclass(reader, Tiff3DIO) and not file.with_suffix(".json").is_file()


def _kept_axes(shape: tuple[int, ...]) -> list[int]:
    kept = [axis for axis, size in enumerate(shape) if size > 1]
    return kept if len(kept) >= 2 else list(range(len(shape)))[-2:]
