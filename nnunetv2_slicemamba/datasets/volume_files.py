"""Volumes in the formats of nnU-Net's readers: headers checked, voxels and grid read, files copied, labels written."""

from __future__ import annotations

import functools
import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.nnunet_readers import Reader, find_reader
from nnunetv2_slicemamba.datasets.cases import Rules
from nnunetv2_slicemamba.datasets.masks import to_labels
from nnunetv2_slicemamba.datasets.stacks import TIFF, read_stack, write_stack
from nnunetv2_slicemamba.datasets.volumes import VolumeError, check_size, copy_nifti, load_nifti, write_nifti_like

NIFTI = (".nii", ".nii.gz")
ONE_FILE_PER_CHANNEL = "if these are channels, write one file per channel: CASE_0000, CASE_0001 and so on"
GIPL_HEADER = 256  # bytes


@functools.cache
def volume_endings() -> tuple[str, ...]:
    """Endings of the formats that nnU-Net's readers of volumes take, in lower case with the dot; longest first."""
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

    readers = [reader for reader in LIST_OF_IO_CLASSES if reader is not NaturalImage2DIO]
    endings = {ending for reader in readers for ending in reader.supported_file_endings}
    return tuple(sorted(endings, key=lambda ending: (-len(ending), ending)))


def volume_ending(path: Path) -> str | None:
    """The ending of a file that could be a volume, else None."""
    name = path.name.lower()
    return next((ending for ending in volume_endings() if name.endswith(ending)), None)


def is_nifti(path: Path) -> bool:
    """True for the name of a NIfTI file."""
    return volume_ending(path) in NIFTI


def written_ending(path: Path) -> str:
    """The ending that the copy of a volume gets: nnU-Net takes one for all files of a dataset."""
    ending = volume_ending(path)
    return ".nii.gz" if ending in NIFTI else ".tif" if ending in TIFF or ending is None else ending


def read_volume(path: Path, reader: Reader) -> tuple[np.ndarray, np.ndarray | None]:
    """Voxels (z, y, x) and affine (4, 4) of a volume, as nnU-Net's reader gives them; stacks have no affine.

    Raises VolumeError for a file that holds no single grey volume, or not all of it, and whatever the reader raises.
    """
    if volume_ending(path) in TIFF:
        return read_stack(path), None
    check_header(path)
    array, properties = reader().read_images((str(path),))
    return array[0], affine_of(properties)


def affine_of(properties: dict[str, Any]) -> np.ndarray:
    """The affine (4, 4) of NIfTI's convention, from the properties that nnU-Net's readers return."""
    if "nibabel_stuff" in properties:
        return np.asarray(properties["nibabel_stuff"]["original_affine"])
    itk = properties["sitk_stuff"]
    n = len(itk["spacing"])  # 4 where a last axis has one value
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(itk["direction"]).reshape(n, n)[:3, :3] * np.asarray(itk["spacing"])[:3]
    affine[:3, 3] = itk["origin"][:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK's x and y point the other way


def known_reader(name: str) -> Reader:
    """nnU-Net's reader with a name."""
    return find_reader({"overwrite_image_reader_writer": name, "file_ending": ""}, "", Path())


def check_header(path: Path) -> None:
    """Refuses headers that promise what cannot be, several values per voxel and cut files, which ITK would fill up."""
    ending = volume_ending(path)
    if ending in NIFTI:
        check_nifti(path)
        return
    header = itk_header(path)
    size, values = header.GetSize(), header.GetNumberOfComponents()
    if values > 1:
        raise VolumeError(f"has {values} values per voxel; {ONE_FILE_PER_CHANNEL}")
    check_axes(size)
    dtype = itk_type(header.GetPixelID())
    check_size(path, size, dtype, compressed=ending != ".gipl")
    if ending == ".gipl":
        check_length(path.stat().st_size, GIPL_HEADER + int(np.prod(size)) * dtype.itemsize)


def check_nifti(path: Path) -> None:
    """Refuses a NIfTI file that has more than three axes of several values, or ends too early."""
    import nibabel

    image: Any = nibabel.load(path)
    check_axes(image.shape)
    load_nifti(path)
    if image.get_data_dtype().kind not in "iuf":
        raise VolumeError(f"holds {image.get_data_dtype()} per voxel, not one number; {ONE_FILE_PER_CHANNEL}")
    needed = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    if not path.name.lower().endswith(".gz"):
        check_length(path.stat().st_size, needed)
        return
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        # gzip keeps the length of its content, which spares unpacking it here; of files in several parts, the last's
        if int.from_bytes(file.read(4), "little") == needed % 2**32:
            return
    there = 0
    with gzip.open(path, "rb") as unpacked:
        while part := unpacked.read(1 << 20):
            there += len(part)
    check_length(there, needed)


def check_axes(shape: tuple[int, ...]) -> None:
    """Refuses other than three axes; further ones may have one value."""
    if len(shape) < 3 or int(np.prod(shape[3:])) != 1:
        remedy = ONE_FILE_PER_CHANNEL if len(shape) > 3 else "pictures are .png, .tif and the like"
        raise VolumeError(f"has {len(shape)} axes, {'x'.join(map(str, shape))}; expected a 3D volume: {remedy}")


def check_length(there: int, needed: int) -> None:
    """Refuses a file that has fewer bytes than its header says."""
    if there < needed:
        raise VolumeError(f"is cut off: {there:,} of {needed:,} bytes")


def itk_header(path: Path) -> Any:
    """ITK's description of a file, its voxels not read."""
    import SimpleITK as sitk

    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return header


def itk_type(pixel: int) -> np.dtype:
    """The type of ITK's values, None of which are complex."""
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(sitk.Image([1, 1, 1], pixel)).dtype


def is_float(path: Path) -> bool:
    """True if a file stores its values as floating point, or as integers that are to be scaled."""
    ending = volume_ending(path)
    if ending in NIFTI:
        image = load_nifti(path)
        scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
        return scaled or image.get_data_dtype().kind not in "iu"
    if ending in TIFF:
        return False  # its reader gives the stored type
    return bool(itk_type(itk_header(path).GetPixelID()).kind not in "iu")


def is_elsewhere(path: Path) -> bool:
    """True if a file only names the one that holds its voxels."""
    ending = volume_ending(path)
    with open(path, "rb") as file:
        start = file.read(1 << 16).lower()
    if ending == ".nrrd":
        return any(line.startswith((b"data file:", b"datafile:")) for line in start.split(b"\n\n")[0].splitlines())
    return ending == ".mha" and b"elementdatafile = local" not in start


def copy_volume(source: Path, target: Path) -> None:
    """A copy in the same format. NIfTI is compressed, axes of one value are dropped, and voxels end up in the file."""
    ending = volume_ending(source)
    if ending in NIFTI:
        copy_nifti(source, target)
        return
    if ending not in TIFF and (itk_header(source).GetDimension() > 3 or is_elsewhere(source)):
        import SimpleITK as sitk

        image = sitk.ReadImage(str(source))
        sitk.WriteImage(image[:, :, :, 0] if image.GetDimension() > 3 else image, str(target), True)
        return
    shutil.copyfile(source, target)


def write_labels(mask: Path, image: Path, rules: Rules, target: Path) -> None:
    """The labels of a mask, in the format and the exact grid of their image."""
    labels = to_labels(narrowed(read_volume(mask, known_reader(rules.reader))[0]), rules.n_labels)
    if is_nifti(image):
        write_nifti_like(labels.transpose(2, 1, 0), image, target)
    elif volume_ending(image) in TIFF:
        write_stack(labels, target)
    else:
        import SimpleITK as sitk

        grid = itk_header(image)
        written = sitk.GetImageFromArray(labels)
        n = grid.GetDimension()
        written.SetSpacing(grid.GetSpacing()[:3])
        written.SetOrigin(grid.GetOrigin()[:3])
        written.SetDirection(np.asarray(grid.GetDirection()).reshape(n, n)[:3, :3].ravel().tolist())
        sitk.WriteImage(written, str(target), True)


def narrowed(values: np.ndarray) -> np.ndarray:
    """The same values as whole numbers of 8 or 16 bits, where they are such: those are looked through much faster."""
    low, high = values.min(initial=0), values.max(initial=0)
    if values.dtype == np.uint8 or not (low >= 0 and high < 2**16):
        return values
    whole = values.astype(np.uint8 if high < 256 else np.uint16)
    return whole if np.array_equal(whole, values) else values
