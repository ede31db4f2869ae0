"""The labels that a mask file holds, or the reason why its values cannot be meant as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import minimum_filter

from nnunetv2_slicemamba.datasets.orientation import is_narrowed, orientation, pages

# JPEG changes the channels of a grey image by a few values at most
CHANNEL_DIFFERENCE = 16
# MPO is what Pillow calls pictures of some cameras; of the others, a file does not say whether it is lossless
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
# grey levels in between count as edges as long as they are few and nowhere form a region this thick, in pixels
BETWEEN = (32, 223)
EDGE_FRACTION = 0.2
REGION = 7
THRESHOLD = 127
# values that are counted at once
PART = 1 << 22


class MaskError(ValueError):
    """The values of a mask cannot be meant as labels; the message says which they are."""


def read_labels(path: Path, n_labels: int = 2) -> np.ndarray:
    """The labels of a mask (H, W), uint8 or, above 255, uint16. n_labels: as in `to_labels`.

    Raises MaskError for what cannot be meant as labels and OSError for a file that cannot be read.
    """
    with Image.open(path) as image:
        kind = image.format if image.format in LOSSY else None
        values = grey_values(image)
    if kind is None:
        return to_labels(values, n_labels)
    if n_labels > 2:
        raise MaskError(f"is a {kind}, which may change the numbers of labels; expected a PNG, TIFF or BMP")
    low, high = BETWEEN
    if values.max() <= low and values.min() != values.max():
        raise MaskError(
            f"is a {kind} with the values {values.min()} to {values.max()}, all black; expected black and white, or a "
            "PNG where labels are 0 and 1"
        )
    # black and white are not exactly 0 and 255, where there is nothing else not even nearly
    return to_labels(np.where(values <= low, 0, np.where((values >= high) & (values < 256), 255, values)))


def grey_values(image: Image.Image) -> np.ndarray:
    """The grey values of an opened mask (H, W), integers.

    A palette of greys is resolved. Of one of colours that begins with black, as annotation tools write, the numbers of
    the colours are taken. Raises MaskError for a mask that is coloured, transparent, turned or one of several pages.
    """
    # first of all: looking for an orientation loads some formats
    if is_narrowed(image):
        raise MaskError("has 16 bits per colour, of which 8 would be lost; expected grey values")
    check_plain(image)
    image.load()
    if not is_opaque(image):
        raise MaskError("is transparent in places; expected black and white without transparency")
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in ("L", "I", "I;16", "I;16B", "I;16L", "F"):
        return np.asarray(image)
    channels = np.asarray(image.convert("RGB")).astype(np.int16)
    if int(np.ptp(channels, axis=2).max()) <= CHANNEL_DIFFERENCE:
        return channels[..., 0].astype(np.uint8)
    if image.mode != "P":
        raise MaskError("is coloured; expected black and white")
    palette = image.getpalette("RGB") or []
    if any(palette[:3]):
        raise MaskError(
            f"has a palette whose colour 0 is {tuple(palette[:3])}, so that its numbers need not be labels; "
            "expected black there, or labels as grey values"
        )
    return np.asarray(image)


def is_opaque(image: Image.Image) -> bool:
    """True if no pixel of an image is transparent, not even partly."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return True
    return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() == 255)


def check_plain(image: Image.Image) -> None:
    """Refuses a mask with more than one page, or with an EXIF orientation."""
    if pages(image) > 1:
        raise MaskError(f"has {pages(image)} pages; expected one")
    if orientation(image) != 1:
        raise MaskError(f"has the EXIF orientation {orientation(image)}; expected a mask that is stored as it is shown")


def to_labels(values: np.ndarray, n_labels: int = 2) -> np.ndarray:
    """Labels (H, W) from the values of a mask: uint8 or, above 255, uint16.

    n_labels: 2 for a binary mask, which may hold 0 and 1, 0 and 255 (or 65535 with 16 bits), or, after JPEG
    compression or resizing, grey levels along its edges, cut at 127. With more labels the values are the labels.
    Raises MaskError for anything else.
    """
    present = distinct(values)
    if not np.isfinite(present).all() or present[0] < 0 or (present != np.round(present)).any():
        raise MaskError(f"holds the values {listed(present)}; expected whole numbers from 0")
    if n_labels > 2:
        if present[-1] >= n_labels:
            raise MaskError(f"holds the values {listed(present)}; expected the labels 0 to {n_labels - 1}")
        return values.astype(np.uint8 if n_labels <= 256 else np.uint16)
    for foreground in (1, 255, 65535):
        if np.isin(present, (0, foreground)).all():
            return (values == foreground).astype(np.uint8)
    if not is_soft_binary(values) or has_further_classes(values, present):
        raise MaskError(f"holds the values {listed(present)}; expected 0 and 1, 0 and 255, or grey only along edges")
    return (values > THRESHOLD).astype(np.uint8)


def distinct(values: np.ndarray) -> np.ndarray:
    """The different values, ascending; for 8 and 16 bits without sorting millions of pixels."""
    if values.dtype in (np.uint8, np.uint16):
        flat, counts = values.ravel(), np.zeros(int(np.iinfo(values.dtype).max) + 1, np.int64)
        for start in range(0, flat.size, PART):  # numpy takes eight bytes for each
            counts += np.bincount(flat[start : start + PART], minlength=len(counts))
        return np.flatnonzero(counts)
    return np.unique(values)


def is_soft_binary(values: np.ndarray) -> bool:
    """True if an 8 bit mask is black and white but for grey edges, so that cutting it at 127 is safe.

    It must reach values near 255, grey must be rare, and no grey region may be as thick as a class of its own.
    """
    low, high = BETWEEN
    if values.max() > 255 or values.max() <= high:
        return False
    grey = (values > low) & (values < high)
    if grey.mean() > EDGE_FRACTION:
        return False
    return not _is_thick(grey)


def has_further_classes(values: np.ndarray, present: np.ndarray) -> bool:
    """True if several values near black, or near white, look like classes rather than like edges: 0, 1 and 255."""
    low, high = BETWEEN
    ends = present[present <= low], present[present >= high]
    if max(map(len, ends)) > 1 and sum(map(len, ends)) == len(present):
        return True  # an edge that was smoothed has grey, too
    return any(sum(_is_thick(values == value) for value in end) > 1 for end in ends)


def _is_thick(region: np.ndarray) -> bool:
    return bool(minimum_filter(region.astype(np.uint8), size=REGION, mode="constant").any())


def listed(present: np.ndarray) -> str:
    """Up to six of the values of a mask, and how many more there are."""
    text = ", ".join(f"{value:g}" for value in present[:6])
    return text if len(present) <= 6 else f"{text}, ... ({len(present)} different ones up to {present[-1]:g})"
