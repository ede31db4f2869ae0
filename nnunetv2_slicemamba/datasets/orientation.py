"""The orientation, the pages, the depth and the greatest size of an image file."""

from __future__ import annotations

import sys

from PIL import Image, ImageOps

ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, from 5 on width and height are exchanged


def orientation(image: Image.Image) -> int:
    """EXIF's number, 1 to 8, for how a viewer turns and mirrors the stored pixels."""
    number = image.getexif().get(ORIENTATION, 1)
    return number if isinstance(number, int) and 1 <= number <= 8 else 1


def pages(image: Image.Image) -> int:
    """Number of images in a file; further ones in a camera's JPEG are previews and not counted."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def is_narrowed(image: Image.Image) -> bool:
    """True if Pillow will keep 8 of a colour's 16 bits; asked before the pixels are loaded."""
    if image.mode[0] in "IF":
        return False
    # how the decoder is told to read the file
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def most_pixels() -> int:
    """Number of pixels above which Pillow refuses an image, and nnU-Net with it."""
    return 2 * (Image.MAX_IMAGE_PIXELS or sys.maxsize)


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as a viewer shows it."""
    width, height = image.size
    return (height, width) if orientation(image) >= 5 else (width, height)


def is_decided(image: Image.Image, mask_size: tuple[int, int] | None) -> bool:
    """True if the size of the mask (width, height) tells whether it belongs to the stored or to the shown pixels."""
    return orientation(image) == 1 or (shown_size(image) != image.size and mask_size is not None)


def as_its_mask(image: Image.Image, mask_size: tuple[int, int] | None) -> Image.Image:
    """The image as stored or as shown, whichever has the size of its mask."""
    if orientation(image) == 1 or image.size == mask_size:
        return image
    return ImageOps.exif_transpose(image)
