"""Checks of images and masks: each can be read, fits its partner, and holds what it should."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from rich.console import Console

from nnunetv2_slicemamba.datasets.examined import ExaminedPair
from nnunetv2_slicemamba.datasets.masks import MaskError, distinct, is_opaque, read_labels
from nnunetv2_slicemamba.datasets.orientation import (
    as_its_mask,
    is_decided,
    is_narrowed,
    most_pixels,
    orientation,
    pages,
)
from nnunetv2_slicemamba.datasets.pairing import Pair
from nnunetv2_slicemamba.datasets.parallel import for_each
from nnunetv2_slicemamba.datasets.problems import Problem

GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
# what Pillow raises for files that are damaged, cut off, of another kind or implausibly large
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
    UnidentifiedImageError,
)


def examine_pairs(pairs: Sequence[Pair], n_labels: int, processes: int, console: Console | None) -> list[ExaminedPair]:
    """All pairs, decoded with a progress bar. n_labels: as in `to_labels`."""
    return for_each(lambda pair: examine(pair, n_labels), pairs, processes, "Checking images and masks", console)


def examine(pair: Pair, n_labels: int) -> ExaminedPair:
    """Decodes image and mask completely. n_labels: as in `to_labels`."""
    problems: list[Problem] = []
    size, mask_size, digest, grey, labels, transparent = None, None, "", False, None, False
    if pair.mask is not None:
        try:
            with Image.open(pair.mask) as mask:
                mask_size = mask.size
            labels = frozenset(map(int, distinct(read_labels(pair.mask, n_labels))))
        except MaskError as error:
            problems.append(Problem("unexpected mask", f"{pair.mask} {error}"))
        except UNREADABLE as error:
            problems.append(unreadable(pair.mask, error))
    try:
        with Image.open(pair.image) as opened:
            if is_narrowed(opened):
                detail = f"{pair.image} has 16 bits per colour; expected 8 bit grey or colour"
                problems.append(Problem("unexpected image", detail))
            opened.load()
            if pages(opened) > 1:
                problems.append(Problem("several pages", f"{pair.image} has {pages(opened)}; expected one per file"))
            if not is_decided(opened, mask_size):
                problems.append(
                    Problem(
                        "turned by its EXIF entry",
                        f"{pair.image} has the orientation {orientation(opened)}, and whether its mask belongs to the "
                        "stored or to the shown pixels cannot be told; store it upright, as its mask is",
                    )
                )
            image = as_its_mask(opened, mask_size)
            size, grey, transparent = image.size, image.mode in GREY_MODES, not is_opaque(image)
            if grey or image.mode in COLOUR_MODES:
                pixels = image.convert("RGB").tobytes()
                digest = hashlib.sha256(f"{size}".encode() + pixels).hexdigest()
            else:
                problems.append(
                    Problem("unexpected image", f"{pair.image} has mode {image.mode}; expected 8 bit grey or colour")
                )
    except UNREADABLE as error:
        problems.append(unreadable(pair.image, error))
    if size is not None and mask_size is not None and mask_size != size:
        problems.append(
            Problem(
                "sizes differ (width x height)",
                f"{pair.image} {size[0]}x{size[1]}, {pair.mask} {mask_size[0]}x{mask_size[1]}",
            )
        )
    return ExaminedPair(pair, tuple(problems), digest, grey, labels, transparent)


def unreadable(path: Path, error: BaseException) -> Problem:
    """The problem of a file that Pillow could not decode."""
    if isinstance(error, Image.DecompressionBombError):
        return Problem(
            "too large",
            f"{path}: Pillow, with which nnU-Net reads images, takes {most_pixels():,} pixels at most; "
            "cut it into tiles",
        )
    if isinstance(error, MemoryError):
        return Problem("too large", f"{path} does not fit into this machine's memory; cut it into tiles")
    size = path.stat().st_size if path.exists() else 0
    # Pillow repeats the path
    reason = str(error).replace(f" '{path}'", "").replace(f" {str(path)!r}", "") or type(error).__name__
    return Problem("unreadable or cut off", f"{path} ({size} bytes): {reason}")
