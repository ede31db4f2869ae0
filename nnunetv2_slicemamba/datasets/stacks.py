"""TIFF stacks: which files are volumes, their voxels, and the size of voxels in a JSON file beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from nnunetv2_slicemamba.common.json_reading import loads
from nnunetv2_slicemamba.datasets.channels import CHANNEL_SUFFIX
from nnunetv2_slicemamba.datasets.volumes import VolumeError

# tifffile's letters: samples of a colour, and channels of a hyperstack
COLOUR, CHANNELS = "S", "C"


def axes_of(path: Path) -> str:
    """Letters of the axes that hold more than one value, as tifffile names them: ZYX for a stack, YXS for a picture.

    Raises OSError or ValueError for what is no TIFF file.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise VolumeError(f"holds {len(file.series)} images of different sizes; expected one stack per file")
        return str(file.series[0].axes)


def is_stack(path: Path) -> bool:
    """True for a file of one grey volume: three axes, none of them a colour's samples."""
    try:
        axes = axes_of(path)
    except (OSError, ValueError, RuntimeError):
        return False  # what is wrong is told by the checks
    return len(axes) == 3 and COLOUR not in axes


def read_stack(path: Path) -> np.ndarray:
    """The voxels (z, y, x) of a stack, as nnU-Net's Tiff3DIO reads them. Raises VolumeError for other files."""
    import tifffile

    axes = axes_of(path)
    if COLOUR in axes:
        raise VolumeError(f"is in colour (axes {axes}); expected a grey stack, and one file per channel")
    if axes.startswith(CHANNELS) or len(axes) > 3:
        raise VolumeError(f"has the axes {axes}; expected one grey stack, and one file per channel: CASE_0000, ...")
    if len(axes) < 3:
        raise VolumeError("is a single picture among stacks; expected several pages")
    return np.asarray(tifffile.imread(path))


def write_stack(labels: np.ndarray, target: Path) -> None:
    """Labels (z, y, x) as a compressed stack."""
    import tifffile

    # without it a stack of three slices would be taken for a colour picture
    tifffile.imwrite(target, labels, photometric="minisblack", compression="zlib")


def voxel_size(path: Path) -> tuple[float, ...] | None:
    """Size (z, y, x) of a stack's voxels, from a JSON file that is named as the stack or its case; None without one.

    Raises VolumeError for a size that cannot be meant.
    """
    for file in (path.with_suffix(".json"), path.with_name(f"{CHANNEL_SUFFIX.sub('', path.stem)}.json")):
        if not file.is_file():
            continue
        try:
            content = loads(file.read_bytes())
        except ValueError as error:
            raise VolumeError(f"{file.name} beside it is not JSON ({error})") from error
        if not isinstance(content, dict) or "spacing" not in content:
            continue  # annotation tools write such files, too
        size = content["spacing"]
        if (
            not isinstance(size, list)
            or len(size) != 3
            or not all(isinstance(s, int | float) and math.isfinite(s) and s > 0 for s in size)
        ):
            raise VolumeError(f"{file.name} beside it has the spacing {size}; expected three sizes above 0: z, y, x")
        return tuple(float(one) for one in size)
    return None


def write_voxel_size(size: tuple[float, ...], target: Path) -> None:
    """The JSON file with the size of voxels."""
    target.write_text(json.dumps({"spacing": list(size)}) + "\n")
