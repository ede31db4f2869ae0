"""The check of a request: its values exist, and its options fit the converter."""

from __future__ import annotations

import re

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.dataset_names import HIGHEST_ID
from nnunetv2_slicemamba.datasets.converter import Converter
from nnunetv2_slicemamba.datasets.registry import all_converters
from nnunetv2_slicemamba.datasets.request import Request

# nnU-Net keeps the labels of a preprocessed image as int16, background among them
MOST_NAMES = 32767


def check_request(request: Request, converter: Converter) -> None:
    """Raises ValueError where an option does not exist or does not fit the dataset, or a folder is not there."""
    if not 0 < request.dataset_id <= HIGHEST_ID:
        raise ValueError(f"the dataset ID is {request.dataset_id}; give a number from 1 to {HIGHEST_ID}")
    if request.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", request.name):
        raise ValueError(f"a dataset cannot be named {request.name!r}; use letters, digits, - and _")
    for source in request.folders:
        if not source.is_dir():
            raise ValueError(f"the source {source} is not a folder; unpack archives first")
    check_test_folders(request, converter)
    if request.split.kind == "by-sequence" and not converter.has_videos:
        keys = ", ".join(other.key for other in all_converters() if other.has_videos)
        raise ValueError(f"--split by-sequence is for {keys}: the videos behind {request.key} are not known")
    if request.resize is not None:
        if not converter.resizable:
            raise ValueError("--resize is for images; nnU-Net resamples volumes by their spacing")
        from nnunetv2_slicemamba.datasets.orientation import most_pixels  # Pillow is slow to import

        height, width = request.resize
        if min(height, width) < 1 or height * width > most_pixels():
            raise ValueError(
                f"--resize is {height} {width}; give height and width in pixels, at least 1 each and together at most "
                f"{most_pixels():,}, which is Pillow's limit"
            )
    if request.train not in ("joint", "own"):
        raise ValueError(f"--train is {request.train!r}; give joint or own")
    if request.organs not in (8, 13):
        raise ValueError(f"--organs is {request.organs}; give 8 or 13")
    if request.labels and not converter.two_folders:
        raise ValueError(f"--labels is for folders; the labels of {request.key} are known")
    if request.channels and not converter.two_folders:
        raise ValueError(f"--channels is for folders; the channels of {request.key} are known")
    if len(set(request.channels)) != len(request.channels):
        raise ValueError(f"--channels {','.join(request.channels)}: names must differ")
    if len(request.labels) > MOST_NAMES:
        raise ValueError(
            f"--labels names {len(request.labels)} labels; nnU-Net keeps them as 16 bit numbers, "
            f"so give at most {MOST_NAMES}"
        )
    if len(set(request.labels) | {"background"}) != len(request.labels) + 1:
        raise ValueError(f"--labels {','.join(request.labels)}: names must differ, and background is 0 anyway")


def check_test_folders(request: Request, converter: Converter) -> None:
    """Raises ValueError where test images do not fit the converter, the training images or the split."""
    if not request.test_images:
        if request.test_masks is not None:
            raise ValueError("--test-masks is for --test-images DIR, which is missing")
        return
    if not converter.two_folders:
        raise ValueError(f"--test-images is for folders; {request.key} takes one source folder")
    channels = len(request.sources) - 1
    if len(request.test_images) != channels:
        raise ValueError(
            f"--test-images names {count(len(request.test_images), 'folder')} and --images {channels}; give one per "
            "channel, in the same order"
        )
    if request.split.kind == "holdout":
        raise ValueError(f"--split {request.split} draws a test set, and --test-images is one; give only one of them")
