"""Reading a mask, and deciding whether its values can be meant as labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import minimum_filter

# JPEG changes the channels of a grey image by a few values at most
CHANNEL_DIFFERENCE = 16
# grey levels in between count as edges as long as they are few and nowhere form a region this thick, in pixels
BETWEEN = (32, 223)
EDGE_FRACTION = 0.2
REGION = 7
THRESHOLD = 127


class MaskError(ValueError):
    """The values of a mask cannot be meant as labels; the message says which they are."""


def read_mask(path: Path) -> np.ndarray:
    """The grey values of a mask (H, W), integers, palettes resolved.

    Raises MaskError for a coloured mask and OSError for a file that cannot be read.
    """
    with Image.open(path) as image:
        image.load()
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8) * np.uint8(255)
        if image.mode in ("L", "I", "I;16", "I;16B", "I;16L", "F"):
            return np.asarray(image)
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
    if int(np.ptp(channels, axis=2).max()) > CHANNEL_DIFFERENCE:
        raise MaskError("is coloured; expected black and white")
    return channels[..., 0].astype(np.uint8)


def to_labels(values: np.ndarray, n_labels: int = 2) -> np.ndarray:
    """Labels (H, W) uint8 from the values of a mask.

    n_labels: 2 for a binary mask, which may hold 0 and 1, 0 and 255 (or 65535 with 16 bits), or, after JPEG
    compression or resizing, grey levels along its edges, cut at 127. With more labels the values are the labels.
    Raises MaskError for anything else.
    """
    present = distinct(values)
    if not np.isfinite(present).all() or present[0] < 0 or (present != np.round(present)).any():
        raise MaskError(f"holds the values {shown(present)}; expected whole numbers from 0")
    if n_labels > 2:
        if present[-1] >= n_labels:
            raise MaskError(f"holds the values {shown(present)}; expected the labels 0 to {n_labels - 1}")
        return values.astype(np.uint8)
    for foreground in (1, 255, 65535):
        if np.isin(present, (0, foreground)).all():
            return (values == foreground).astype(np.uint8)
    if not is_soft_binary(values):
        raise MaskError(f"holds the values {shown(present)}; expected 0 and 1, 0 and 255, or grey only along edges")
    return (values > THRESHOLD).astype(np.uint8)


def distinct(values: np.ndarray) -> np.ndarray:
    """The different values, ascending; for 8 bits without sorting millions of pixels."""
    if values.dtype == np.uint8:
        return np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    return np.unique(values)


def is_soft_binary(values: np.ndarray) -> bool:
    """Whether an 8 bit mask is black and white but for grey edges, so that cutting it at 127 is safe.

    It must reach values near 255, grey must be rare, and no grey region may be as thick as a class of its own.
    """
    low, high = BETWEEN
    if values.max() > 255 or values.max() <= high:
        return False
    grey = (values > low) & (values < high)
    if grey.mean() > EDGE_FRACTION:
        return False
    return not minimum_filter(grey.astype(np.uint8), size=REGION, mode="constant").any()


def shown(present: np.ndarray) -> str:
    """Up to six of the values of a mask, and how many more there are."""
    text = ", ".join(f"{value:g}" for value in present[:6])
    return text if len(present) <= 6 else f"{text}, ... ({len(present)} different ones up to {present[-1]:g})"
