"""A small real ImageFolder: imaging modalities as classes, from the images that are shipped and, if there, more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

import nnunetv2_slicemamba

SHIPPED = Path(nnunetv2_slicemamba.__file__).resolve().parent / "demo" / "data"
# not shipped: licences that do not allow it
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
MORE = {"dermoscopy": "isic2017", "colonoscopy": "kvasir"}


def pictures(name: str, count: int) -> list[Image.Image]:
    """The first images of a modality, at most 64 pixels wide or high."""
    if name == "fluorescence":
        files = sorted((SHIPPED / "nuclei2d" / "imagesTr").glob("*.png"))[:count]
        found = [Image.open(file).convert("RGB") for file in files]
    elif name == "mri":
        found = []
        for file in sorted((SHIPPED / "hippocampus3d" / "imagesTr").glob("*.nii.gz"))[:count]:
            volume = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(float)
            middle = volume[len(volume) // 2]
            found.append(Image.fromarray(np.uint8(255 * middle / middle.max())).convert("RGB"))
    else:
        files = sorted((SHARED / MORE[name]).rglob("*.jpg"))[:count]
        found = [Image.open(file).convert("RGB") for file in files]
    for picture in found:
        picture.thumbnail((64, 64))
    return found


def write_image_folder(root: Path, train: int = 12, validation: int = 6) -> Path:
    """Writes root/train/CLASS/*.png and root/val/CLASS/*.png, all classes with as many images; returns root."""
    classes = ["fluorescence", "mri", *(name for name, folder in MORE.items() if (SHARED / folder).is_dir())]
    for name in classes:
        found = pictures(name, train + validation)
        assert len(found) == train + validation, name
        for i, picture in enumerate(found):
            folder = root / ("train" if i < train else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{i}.png")
    return root
