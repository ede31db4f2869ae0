"""Cases as pictures: truth and prediction as contours over the image, a 2D image as it is, a volume as three slices."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from .dataset import DatasetFacts, DatasetFolders, Labels, outer_regions
from .svg import Drawing

# Pixels of a picture's longer side: more than a phone or a column shows, less than makes the file heavy.
LONGEST = 640
# A PNG keeps every pixel; above this size a JPEG says the same in a tenth of it.
LARGEST_PNG = 150_000
AXES = ("axial", "coronal", "sagittal")
# Borders between pixels inside and outside, per pixel of the picture, above which outlines run together into blobs.
SPECKLED = 0.25


@dataclass(frozen=True)
class CasePicture:
    """A picture of a case, or of one slice of it. what: "image", or the slice's direction and number. filled: the
    segmentations that are drawn as areas, since their outlines would run together."""

    what: str
    drawing: Markup
    filled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """image: (z, y, x) grey values, or (z, y, x, 3) of an RGB image; z is 1 in 2D. spacing: mm per axis, z y x."""

    image: NDArray[Any]
    spacing: tuple[float, float, float]


def image_files(
    folders: DatasetFolders, dataset: DatasetFacts, case: str, part: str = "Tr", elsewhere: Path | None = None
) -> list[Path]:
    """The channels of a case in nnUNet_raw, in order; empty if they are not there. part: "Tr" or "Ts".

    elsewhere: a folder to look in instead, where a file of one channel may also have the case's plain name.
    """
    if elsewhere is not None:
        plain = elsewhere / f"{case}{dataset.file_ending}"
        return _channels(elsewhere, dataset, case) or ([plain] if plain.is_file() else [])
    if folders.raw is None:
        return []
    own_list = dataset.description.get("dataset")
    if part == "Tr" and isinstance(own_list, dict) and case in own_list:
        # dataset.json may name files anywhere, relative to the dataset's folder
        files = [folders.raw / name for name in own_list[case]["images"]]
        return files if all(file.is_file() for file in files) else []
    return _channels(folders.raw / f"images{part}", dataset, case)


def _channels(folder: Path, dataset: DatasetFacts, case: str) -> list[Path]:
    names = [folder / f"{case}_{i:04d}{dataset.file_ending}" for i in range(len(dataset.channels))]
    # an RGB image is one file, whatever the number of channels
    return [name for name in names if name.is_file()]


def truth_file(folders: DatasetFolders, dataset: DatasetFacts, case: str) -> Path | None:
    """The reference segmentation of a training case: nnU-Net's copy beside the preprocessed data, else the raw one."""
    own_list = dataset.description.get("dataset")
    candidates = []
    if folders.preprocessed:
        candidates.append(folders.preprocessed / "gt_segmentations" / f"{case}{dataset.file_ending}")
    if folders.raw and isinstance(own_list, dict) and case in own_list:
        candidates.append(folders.raw / own_list[case]["label"])
    if folders.raw:
        candidates.append(folders.raw / "labelsTr" / f"{case}{dataset.file_ending}")
    return next((file for file in candidates if file.is_file()), None)


def _reader(dataset: DatasetFacts, file: Path) -> Any:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    return determine_reader_writer_from_dataset_json(dict(dataset.description), str(file), verbose=False)()


def read_image(files: Sequence[Path], dataset: DatasetFacts) -> Volume:
    """An image through the reader that nnU-Net uses for this dataset."""
    data, properties = _reader(dataset, files[0]).read_images([str(file) for file in files])
    is_rgb = data.shape[0] == 3 and data.shape[1] == 1 and len(files) == 1
    image = np.moveaxis(data, 0, -1) if is_rgb else data[0]
    z, y, x = (float(step) for step in properties["spacing"])
    return Volume(image, (z, y, x))


def read_labels(file: Path, dataset: DatasetFacts) -> tuple[NDArray[Any], tuple[float, float, float]]:
    """(z, y, x) labels and the spacing in mm."""
    data, properties = _reader(dataset, file).read_seg(str(file))
    z, y, x = (float(step) for step in properties["spacing"])
    return data[0], (z, y, x)


def draw_case(
    case: str,
    images: Sequence[Path],
    truth: Path | None,
    prediction: Path | None,
    dataset: DatasetFacts,
    name: str,
) -> list[CasePicture]:
    """Pictures of a case: one in 2D, three of a volume, which are central slices through the truth's foreground.

    Without an image the contours are drawn on an empty one. name: unique in the page. Raises ValueError if sizes
    differ, or there is nothing to draw.
    """
    known = {kind: read_labels(file, dataset) for kind, file in (("truth", truth), ("prediction", prediction)) if file}
    volume = read_image(images, dataset) if images else None
    if volume is None:
        if not known:
            raise ValueError(f"{case} has neither image nor segmentation")
        labels, spacing = next(iter(known.values()))
        volume = Volume(np.zeros(labels.shape, np.uint8), spacing)
    shape = volume.image.shape[:3]
    for kind, (labels, _) in known.items():
        if labels.shape != shape:
            raise ValueError(f"the {kind} of {case} has {labels.shape} voxels, the image {shape}")
    low, high = _window(volume.image)
    centre = _centre(next((labels for labels, _ in known.values()), np.zeros(shape, np.uint8)), dataset)
    pictures = []
    for axis in (0, 1, 2) if shape[0] > 1 else (0,):
        at = centre[axis]
        grey = _grey(np.take(volume.image, at, axis), low, high)
        # rows of coronal and sagittal slices go up in the body
        up = axis > 0
        masks = {kind: np.take(labels, at, axis) for kind, (labels, _) in known.items()}
        if up:
            grey, masks = grey[::-1], {kind: mask[::-1] for kind, mask in masks.items()}
        steps = [step for i, step in enumerate(volume.spacing) if i != axis]
        what = "image" if shape[0] == 1 else f"{AXES[axis]} slice {at + 1} of {shape[axis]}"
        label = f"{case}, {what}" + (f", with the contours of {' and '.join(known)}" if known else "")
        drawing = overlay(grey, masks, (steps[0], steps[1]), dataset.classes, f"{name}-{axis}", label)
        filled = tuple(kind for kind, mask in masks.items() if speckled(np.isin(mask, _foreground(dataset.classes))))
        pictures.append(CasePicture(what, drawing, filled))
    return pictures


def overlay(
    grey: NDArray[np.uint8],
    masks: dict[str, NDArray[Any]],
    spacing: tuple[float, float],
    classes: Sequence[tuple[str, Labels]],
    name: str,
    label: str,
) -> Markup:
    """An image with contours as lines, in the image's physical proportions.

    grey: (y, x) or (y, x, 3). masks: (y, x) labels by "truth" and "prediction", which are the lines' classes. spacing:
    of y and x.
    """
    height, width = grey.shape[0] * spacing[0], grey.shape[1] * spacing[1]
    scale = LONGEST / max(height, width)
    drawing = Drawing(width * scale, height * scale, "overlay")
    address = encoded(grey)
    drawing.add("image", href=address, x=0, y=0, width=width * scale, height=height * scale, preserveAspectRatio="none")
    step = (spacing[0] * scale, spacing[1] * scale)
    # where borders coincide, a region's wider line stays in sight below that of a region inside it
    below, outside = sorted(enumerate(classes), key=lambda entry: -len(entry[1][1])), outer_regions(classes)
    for kind, mask in masks.items():
        group = drawing.add("g", class_=f"contour {kind}")
        if speckled(np.isin(mask, _foreground(classes))):
            _fill(drawing, group, mask, classes, f"{name}-{kind}", (width * scale, height * scale))
            continue
        for number, (name_of, labels) in below:
            path = contour_path(np.isin(mask, labels), step)
            if path:
                outer = " outer" if name_of in outside else ""
                # a dark line below keeps the coloured one visible on bright ground
                drawing.add("path", group, d=path, class_=f"halo{outer}")
                drawing.add("path", group, d=path, class_=f"line class-{number % 6}{outer}")
    return drawing.markup(name, label)


def speckled(mask: NDArray[np.bool_]) -> bool:
    """True for a mask of so many small parts that outlines would cover the picture."""
    borders = sum(int((np.diff(mask.astype(np.int8), axis=axis) != 0).sum()) for axis in (0, 1))
    return borders > SPECKLED * mask.size


def _fill(
    drawing: Drawing,
    group: Any,
    mask: NDArray[Any],
    classes: Sequence[tuple[str, Labels]],
    name: str,
    size: tuple[float, float],
) -> None:
    """Draws every class as a translucent area, whose colour is the style sheet's. name: unique in the page."""
    box: dict[str, Any] = {"x": 0, "y": 0, "width": size[0], "height": size[1]}
    for number, (_, labels) in enumerate(classes):
        inside = np.isin(mask, labels)
        if not inside.any():
            continue
        area = drawing.add("mask", group, id=f"{name}-{number}")
        drawing.add("image", area, href=encoded(inside.astype(np.uint8) * 255), preserveAspectRatio="none", **box)
        drawing.add("rect", group, class_=f"area class-{number % 6}", mask=f"url(#{name}-{number})", **box)


def _foreground(classes: Sequence[tuple[str, Labels]]) -> list[int]:
    return [label for _, own in classes for label in own]


def contour_path(mask: NDArray[np.bool_], step: tuple[float, float]) -> str:
    """SVG path around a mask, along the middle between pixels inside and outside. step: size of a pixel, y and x."""
    from skimage.measure import approximate_polygon, find_contours

    parts = []
    # padded, or what touches the border would stay open
    for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        kept = approximate_polygon(line, 0.2)
        # minus the padding, plus half a pixel: coordinates are of pixels' middles
        points = [f"{(x - 0.5) * step[1]:.1f} {(y - 0.5) * step[0]:.1f}" for y, x in kept[:-1]]
        if len(points) > 2:
            parts.append(f"M{'L'.join(points)}Z")
    return "".join(parts)


def encoded(grey: NDArray[np.uint8]) -> str:
    """A data URI, at most LONGEST pixels long: PNG, or JPEG where a PNG would be large."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(grey))
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 88, "optimize": True})):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        if buffer.tell() <= LARGEST_PNG:
            break
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _window(image: NDArray[Any]) -> tuple[float, float]:
    """Grey values that become black and white: those of the whole image, without its brightest and darkest parts."""
    if image.ndim == 4:
        return 0.0, 255.0 if image.max() <= 255 else float(image.max())
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(high)


def _grey(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (image.astype(np.float64) - low) / ((high - low) or 1.0)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _centre(labels: NDArray[Any], dataset: DatasetFacts) -> tuple[int, ...]:
    """The middle of the foreground, or of the image where there is none."""
    foreground = np.isin(labels, _foreground(dataset.classes))
    if not foreground.any():
        return tuple(size // 2 for size in labels.shape)
    return tuple(round(float(positions.mean())) for positions in np.nonzero(foreground))
