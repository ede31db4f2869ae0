"""Checks of images and masks: each can be read, fits its partner, and holds what it should."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
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
    mask_size, labels = None, None
    if pair.mask is not None:
        try:
            with Image.open(pair.mask) as mask:
                mask_size = mask.size
            labels = frozenset(map(int, distinct(read_labels(pair.mask, n_labels))))
        except MaskError as error:
            problems.append(Problem("unexpected mask", f"{pair.mask} {error}"))
        except UNREADABLE as error:
            problems.append(unreadable(pair.mask, error))
    pictures = [examine_picture(path, mask_size, problems) for path in pair.images]
    # without a mask the channels must fit each other
    wanted, like = (mask_size, pair.mask) if mask_size is not None else (pictures[0].size, pair.image)
    for path, picture in zip(pair.images, pictures, strict=True):
        if pair.more and picture.size is not None and not picture.grey:
            problems.append(Problem("unexpected image", f"{path} is in colour; of several channels each is grey"))
        if picture.size is not None and wanted is not None and wanted != picture.size:
            there = "x".join(map(str, picture.size))
            detail = f"{path} {there}, {like} {'x'.join(map(str, wanted))}"
            problems.append(Problem("sizes differ (width x height)", detail))
    return ExaminedPair(
        pair,
        tuple(problems),
        "".join(picture.digest for picture in pictures),
        all(picture.grey for picture in pictures),
        labels,
        any(picture.transparent for picture in pictures),
    )


@dataclass(frozen=True)
class Picture:
    """A decoded picture; of what cannot be decoded, the size (width, height) is None. digest: of its pixels as RGB."""

    size: tuple[int, int] | None = None
    grey: bool = False
    digest: str = ""
    transparent: bool = False


def examine_picture(path: Path, mask_size: tuple[int, int] | None, problems: list[Problem]) -> Picture:
    """Decodes a picture completely. mask_size (width, height): tells how a turned picture is meant."""
    try:
        with Image.open(path) as opened:
            if is_narrowed(opened):
                detail = f"{path} has 16 bits per colour; expected 8 bit grey or colour"
                problems.append(Problem("unexpected image", detail))
            opened.load()
            if pages(opened) > 1:
                problems.append(Problem("several pages", f"{path} has {pages(opened)}; expected one per file"))
            if not is_decided(opened, mask_size):
                problems.append(
                    Problem(
                        "turned by its EXIF entry",
                        f"{path} has the orientation {orientation(opened)}, and whether its mask belongs to the "
                        "stored or to the shown pixels cannot be told; store it upright, as its mask is",
                    )
                )
            image = as_its_mask(opened, mask_size)
            grey, digest = image.mode in GREY_MODES, ""
            if grey or image.mode in COLOUR_MODES:
                pixels = image.convert("RGB").tobytes()
                digest = hashlib.sha256(f"{image.size}".encode() + pixels).hexdigest()
            else:
                problems.append(
                    Problem("unexpected image", f"{path} has mode {image.mode}; expected 8 bit grey or colour")
                )
            return Picture(image.size, grey, digest, not is_opaque(image))
    except UNREADABLE as error:
        problems.append(unreadable(path, error))
        return Picture()


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
