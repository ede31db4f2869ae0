"""Volumes keep their labels, headers that promise too much take no memory, and nnU-Net can read what is written."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.datasets.image_checks import examine
from nnunetv2_slicemamba.datasets.pairing import TEST, Pair
from nnunetv2_slicemamba.datasets.scans import Scan
from nnunetv2_slicemamba.datasets.volume_checks import examine_scan
from nnunetv2_slicemamba.datasets.volumes import VolumeError, map_labels, read_h5, read_nifti
from tests.datasets.dataset_sources import cases_in, run, write_nifti


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (70000, np.uint32)])
def test_labels_keep_their_numbers_whatever_their_size(highest: int, dtype: type) -> None:
    labels = np.float64([[0, 1, highest]])
    assert np.array_equal(map_labels(labels, None), labels)
    assert map_labels(labels, None).dtype == dtype
    assert map_labels(labels, ((highest, 300), (7, 1))).tolist() == [[0, 0, 300]]


def promise(path: Path, shape: tuple[int, ...]) -> Path:
    """A small NIfTI file whose header is of a larger volume."""
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float64), np.eye(4)), path.with_name("small.nii"))
    content = bytearray(path.with_name("small.nii").read_bytes())
    content[40:56] = np.int16([len(shape), *shape, *(1,) * (7 - len(shape))]).tobytes()
    if path.suffix == ".gz":
        import gzip

        path.write_bytes(gzip.compress(bytes(content)))
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_of_140_terabytes_is_refused_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    path = promise(tmp_path / name, (26000, 26000, 26000))
    tracemalloc.start()
    with pytest.raises(VolumeError, match=r"promises 26000x26000x26000 values, 140,608\.0 GB; a file of"):
        read_nifti(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_h5_file_that_only_describes_its_values_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key in ("image", "label"):
            file.create_dataset(key, (30000, 30000, 30000), "f4", chunks=(1, 512, 512))
    with pytest.raises(VolumeError, match=r"promises 30000x30000x30000 values, 108,000\.0 GB"):
        read_h5(tmp_path / "a.h5")


def test_a_slice_whose_header_promises_too_much_is_a_problem(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "case0005_slice000.npz", "w") as archive:
        for key in ("image", "label"):
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<f8", "fortran_order": False, "shape": (10**7, 10**7)}
                )
    scan = Scan("case0005", "npz", (tmp_path / "case0005_slice000.npz",))
    assert [problem.kind for problem in examine_scan(scan, 13).problems] == ["too large"]


def test_an_h5_file_with_groups_in_place_of_values_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("image")
    with pytest.raises(VolumeError, match="has no image and no label"):
        read_h5(tmp_path / "a.h5")


def test_what_can_be_compressed_best_is_read(tmp_path: Path) -> None:
    zeros = np.zeros((120, 120, 120), np.float32)
    nibabel.save(nibabel.Nifti1Image(zeros, np.eye(4)), tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz")[0].shape == zeros.shape
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key in ("image", "label"):
            file.create_dataset(key, data=zeros, compression="gzip", compression_opts=9)
    assert read_h5(tmp_path / "a.h5")[1].shape == zeros.shape


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2)])
def test_other_numbers_of_axes_are_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match=rf"has {len(shape)} axes, {'x'.join(map(str, shape))}; expected a 3D volume"):
        read_nifti(tmp_path / "a.nii.gz")


def shear(source: Path, number: int) -> None:
    for file in source.rglob(f"*{number:04d}.nii.gz"):
        image = nibabel.load(file)
        affine = image.affine.copy()
        affine[0, 1], affine[1, 2] = 0.12, 0.2
        # its form with right angles is left out, as by most tools
        written = nibabel.Nifti1Image(np.asarray(image.dataobj), affine)
        written.set_qform(None, 0)
        nibabel.save(written, file)


def test_a_sheared_scan_among_straight_ones_is_refused_by_name(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "source", (5, 6, 7))
    shear(tmp_path / "source", 7)
    with pytest.raises(ValueError, match=r"not for nnU-Net's reader \(2\)") as refused:
        run("synapse", tmp_path / "source", raw)
    for kind in ("img", "label"):
        told = f"{kind}0007.nii.gz: SimpleITKIO cannot read it: its axes are not at right angles (shear); resample"
        assert told in str(refused.value)


def test_sheared_scans_alone_are_for_nnunets_other_reader(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "source", (5, 6))
    shear(tmp_path / "source", 5)
    shear(tmp_path / "source", 6)
    assert cases_in(run("synapse", tmp_path / "source", raw).folder, "Tr", ".nii.gz") == {"case0005", "case0006"}


def test_an_image_beyond_pillows_limit_is_told_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (20, 11)).save(tmp_path / "a.png")
    (problem,) = examine(Pair("a", tmp_path / "a.png", None, TEST), 2).problems
    assert problem.kind == "too large"
    assert "Pillow, with which nnU-Net reads images, takes 200 pixels at most; cut it into tiles" in problem.detail


def test_transparent_pixels_of_images_are_told(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
    image.save(tmp_path / "opaque.png")
    image.putpixel((0, 0), (1, 2, 3, 0))
    image.save(tmp_path / "clear.png")
    seen = [examine(Pair(name, tmp_path / f"{name}.png", None, TEST), 2) for name in ("opaque", "clear")]
    assert [one.transparent for one in seen] == [False, True]
    assert not any(one.problems for one in seen)
