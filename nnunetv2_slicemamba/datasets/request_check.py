"""The check of a request: its values exist, and its options fit the converter."""

from __future__ import annotations

import re

from nnunetv2_slicemamba.common.dataset_names import HIGHEST_ID
from nnunetv2_slicemamba.datasets.converter import Converter
from nnunetv2_slicemamba.datasets.registry import all_converters
from nnunetv2_slicemamba.datasets.request import Request


def check_request(request: Request, converter: Converter) -> None:
    """Raises ValueError where an option does not exist or does not fit the dataset, or a folder is not there."""
    if not 0 < request.dataset_id <= HIGHEST_ID:
        raise ValueError(f"the dataset ID is {request.dataset_id}; give a number from 1 to {HIGHEST_ID}")
    if request.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", request.name):
        raise ValueError(f"a dataset cannot be named {request.name!r}; use letters, digits, - and _")
    for source in request.sources:
        if not source.is_dir():
            raise ValueError(f"the source {source} is not a folder; unpack archives first")
    if request.split.kind == "by-sequence" and not converter.has_videos:
        keys = ", ".join(other.key for other in all_converters() if other.has_videos)
        raise ValueError(f"--split by-sequence is for {keys}: the videos behind {request.key} are not known")
    if request.resize is not None:
        if not converter.resizable:
            raise ValueError("--resize is for images; nnU-Net resamples volumes by their spacing")
        if min(request.resize) < 1:
            raise ValueError(f"--resize is {request.resize[0]} {request.resize[1]}; give height and width in pixels")
    if request.train not in ("joint", "own"):
        raise ValueError(f"--train is {request.train!r}; give joint or own")
    if request.organs not in (8, 13):
        raise ValueError(f"--organs is {request.organs}; give 8 or 13")
    if request.labels and not converter.two_folders:
        raise ValueError(f"--labels is for folders; the labels of {request.key} are known")
    if len(set(request.labels) | {"background"}) != len(request.labels) + 1:
        raise ValueError(f"--labels {','.join(request.labels)}: names must differ, and background is 0 anyway")
