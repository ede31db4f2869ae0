"""Volumes in the formats of nnU-Net's readers: headers checked, voxels and grid read, files copied, labels written."""

from __future__ import annotations

import functools
import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.nnunet_readers import Reader
from nnunetv2_slicemamba.datasets.cases import Rules
from nnunetv2_slicemamba.datasets.masks import to_labels
from nnunetv2_slicemamba.datasets.source_files import TIFF
from nnunetv2_slicemamba.datasets.stacks import read_stack, write_stack
from nnunetv2_slicemamba.datasets.volumes import VolumeError, check_size, copy_nifti, write_nifti_like

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
    """Voxels (z, y, x) of a volume, and its affine (4, 4) as nnU-Net's reader understands it; stacks have none.

    Raises VolumeError for a file that holds no single grey volume, or not all of it, and whatever the reader raises.
    """
    if volume_ending(path) in TIFF:
        return read_stack(path), None
    if is_nifti(path):
        # ITK would read a file that is cut off, and take NaN for 0
        image = read_whole_nifti(path)
        values = np.asanyarray(image.dataobj).reshape(image.shape[:3])
        values = values.astype(np.float32) if values.dtype == np.float64 else values
        is_itk = "SimpleITK" in reader.__name__
        return values.transpose(2, 1, 0), itk_affine(itk_header(path)) if is_itk else np.asarray(image.affine)
    header = itk_header(path)
    check_header(header, path)
    return reader().read_images((str(path),))[0][0], itk_affine(header)


def itk_affine(header: Any) -> np.ndarray:
    """The affine (4, 4) of NIfTI's convention, from ITK's description of a file."""
    n = header.GetDimension()  # 4 where a last axis has one value
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(header.GetDirection(), (n, n))[:3, :3] * np.asarray(header.GetSpacing())[:3]
    affine[:3, 3] = header.GetOrigin()[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # ITK's x and y point the other way


def known_reader(name: str) -> Reader:
    """nnU-Net's reader with a name."""
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    # `find_reader` silences the whole process, which must not happen in threads
    return recursive_find_reader_writer_by_name(name)


def check_header(header: Any, path: Path) -> None:
    """Refuses what is no single volume, promises more than the file can hold, or is cut off where ITK would not see it.

    header: as from `itk_header`.
    """
    size, values = header.GetSize(), header.GetNumberOfComponents()
    if values > 1:
        raise VolumeError(f"has {values} values per voxel; {ONE_FILE_PER_CHANNEL}")
    check_axes(size)
    dtype, is_plain = itk_type(header.GetPixelID()), volume_ending(path) == ".gipl"
    check_size(path, size, dtype, compressed=not is_plain)
    if is_plain:
        check_length(path.stat().st_size, GIPL_HEADER + int(np.prod(size)) * dtype.itemsize)


def read_whole_nifti(path: Path) -> Any:
    """A NIfTI file as nibabel's image, decompressed once and to its end. VolumeError for other than one volume."""
    import nibabel

    image: Any = nibabel.load(path)
    packed = path.name.lower().endswith(".gz")
    check_axes(image.shape)
    if image.get_data_dtype().kind not in "iuf":
        raise VolumeError(f"holds colours or complex numbers; {ONE_FILE_PER_CHANNEL}")
    check_size(path, image.shape, image.get_data_dtype(), packed)
    needed = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    if not packed:
        check_length(path.stat().st_size, needed)
        return image
    with gzip.open(path, "rb") as unpacked:
        content = unpacked.read(needed)
        check_length(len(content), needed)
        while unpacked.read(1 << 20):
            pass  # the checksum is at the end
    return type(image).from_bytes(content)


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


def is_float(path: Path, values: np.ndarray) -> bool:
    """True if a file stores its values as floating point, or as integers that are to be scaled."""
    if is_nifti(path) or volume_ending(path) in TIFF:
        return values.dtype.kind not in "iu"
    # nnU-Net's reader makes floating point of all
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
    """`values` as uint8 or uint16 if they are whole numbers that fit, else unchanged; small types are faster."""
    low, high = values.min(initial=0), values.max(initial=0)
    if values.dtype == np.uint8 or not (low >= 0 and high < 2**16):
        return values
    whole = values.astype(np.uint8 if high < 256 else np.uint16)
    return whole if np.array_equal(whole, values) else values
