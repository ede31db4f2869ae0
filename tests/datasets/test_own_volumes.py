"""One's own volumes are converted voxel by voxel in every format that nnU-Net reads, or refused with the reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunetv2_slicemamba.datasets.convert import Converted
from nnunetv2_slicemamba.datasets.manifest import VOLUME_ENDINGS
from nnunetv2_slicemamba.datasets.source_files import TIFF
from nnunetv2_slicemamba.datasets.volume_files import volume_endings
from tests.datasets.dataset_sources import cases_in, run, write_pair
from tests.datasets.volume_sources import SHAPE, box, read, write_array, write_case


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def own(tmp_path: Path, raw: Path, **options: object) -> Converted:
    """The conversion of the folders images and masks."""
    return run("folders", tmp_path, raw, sources=(tmp_path / "images", tmp_path / "masks"), **options)


@pytest.mark.parametrize(
    ("ending", "written"),
    [
        (".nii.gz", ".nii.gz"),
        (".nii", ".nii.gz"),
        (".nrrd", ".nrrd"),
        (".mha", ".mha"),
        (".gipl", ".gipl"),
        (".tif", ".tif"),
        (".tiff", ".tif"),
    ],
)
def test_every_format_keeps_its_voxels_and_its_place(tmp_path: Path, raw: Path, ending: str, written: str) -> None:
    sources = {name: write_case(tmp_path / "images", tmp_path / "masks", name, ending) for name in "ab"}
    folder = own(tmp_path, raw).folder
    assert cases_in(folder, "Tr", written) == {"a", "b"}
    for name, (image, mask) in sources.items():
        for source, target in ((image, f"imagesTr/{name}_0000"), (mask, f"labelsTr/{name}")):
            (voxels, place), (new_voxels, new_place) = read(source), read(folder / f"{target}{written}")
            assert np.array_equal(voxels, new_voxels)
            assert place is None or np.array_equal(place, new_place)
            if ending == written:
                assert source.read_bytes() == (folder / f"{target}{written}").read_bytes()


def test_formats_of_nnunets_readers_are_among_those_whose_changes_are_seen() -> None:
    assert {Path(f"a{ending}").suffix for ending in volume_endings()} <= VOLUME_ENDINGS | set(TIFF)


def as_float(mask: np.ndarray, path: Path) -> Path:
    return write_array(mask.astype(np.float32), path)


def as_white(mask: np.ndarray, path: Path) -> Path:
    return write_array(mask * np.uint8(255), path)


def in_another_format(mask: np.ndarray, path: Path) -> Path:
    return write_array(mask, path.with_name("a.seg.nrrd"))


def at_another_origin(mask: np.ndarray, path: Path) -> Path:
    return write_array(mask, path, (11, 20, -30))


def scaled(mask: np.ndarray, path: Path) -> Path:
    write_array(mask * np.uint8(2), path)
    image = nibabel.load(path)
    copy = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    copy.header.set_slope_inter(0.5, 0)
    nibabel.save(copy, path)
    return path


@pytest.mark.parametrize("write", [as_float, as_white, in_another_format, at_another_origin, scaled])
def test_masks_that_cannot_be_copied_become_whole_numbers_in_their_images_place(
    tmp_path: Path, raw: Path, write: Callable[[np.ndarray, Path], Path]
) -> None:
    write_case(tmp_path / "images", tmp_path / "masks", "a")[1].unlink()
    write(box("a")[1], tmp_path / "masks" / "a.nii.gz")
    done = own(tmp_path, raw)
    labels, place = read(done.folder / "labelsTr" / "a.nii.gz")
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, box("a")[1])
    assert np.array_equal(place, read(done.folder / "imagesTr" / "a_0000.nii.gz")[1])
    notes = " ".join(done.conversion.notes)
    assert "1 mask written anew" in notes
    assert ("1 mask with another origin than the image: the image's is written" in notes) == (
        write is at_another_origin
    )


def test_axes_of_one_value_are_dropped_without_a_change_of_values(tmp_path: Path, raw: Path) -> None:
    stored = box("a")[0].transpose(2, 1, 0)[..., None]
    scale = nibabel.Nifti1Image(stored, np.diag([2.0, 2, 2, 1]))
    scale.header.set_slope_inter(0.123, 7)
    assert scale.shape[3] == 1
    (tmp_path / "images").mkdir()
    nibabel.save(scale, tmp_path / "images" / "a.nii.gz")
    before = nibabel.load(tmp_path / "images" / "a.nii.gz").get_fdata()[..., 0]
    (tmp_path / "masks").mkdir()
    mask = nibabel.Nifti1Image(box("a")[1].transpose(2, 1, 0)[..., None], scale.affine)
    nibabel.save(mask, tmp_path / "masks" / "a.nii.gz")
    folder = own(tmp_path, raw).folder
    assert np.array_equal(nibabel.load(folder / "imagesTr" / "a_0000.nii.gz").get_fdata(), before)
    assert np.array_equal(read(folder / "labelsTr" / "a.nii.gz")[0], box("a")[1])


def test_an_mha_that_names_another_file_is_written_with_its_voxels(tmp_path: Path, raw: Path) -> None:
    image, _ = write_case(tmp_path / "images", tmp_path / "masks", "a", ".mha")
    sitk.WriteImage(sitk.ReadImage(str(image)), str(tmp_path / "images" / "a.mhd"))
    (tmp_path / "images" / "a.mhd").replace(image)
    assert "a.raw" in image.read_text()
    folder = own(tmp_path, raw).folder
    assert np.array_equal(read(folder / "imagesTr" / "a_0000.mha")[0], box("a")[0])


def test_everything_that_is_wrong_with_volumes_is_told_at_once(tmp_path: Path, raw: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    paths = {name: write_case(images, masks, name) for name in "abcdefghi"}
    write_array(box("a")[1][:-1], paths["a"][1])
    image = nibabel.load(paths["b"][1])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([2, 1, 1, 1])), paths["b"][1])
    write_array(np.where(box("c")[1], np.nan, 1).astype(np.float32), paths["c"][0])
    write_array(box("d", 2)[1], paths["d"][1])
    content = gzip.decompress(paths["e"][0].read_bytes())
    paths["e"][0].write_bytes(gzip.compress(content[: len(content) // 2]))
    paths["f"][1].write_bytes(b"nothing")
    four = np.stack([box("g")[0].transpose(2, 1, 0)] * 3, axis=-1)
    nibabel.save(nibabel.Nifti1Image(four, image.affine), paths["g"][0])
    sheared = image.affine.copy()
    sheared[0, 1] = 0.5
    written = nibabel.Nifti1Image(box("h")[0].transpose(2, 1, 0), sheared)
    written.set_qform(None, 0)
    nibabel.save(written, paths["h"][0])
    paths["i"][1].unlink()
    (images / "j.png").touch()
    with pytest.raises(ValueError, match="9 problems found and nothing written") as refused:
        own(tmp_path, raw)
    message = str(refused.value)
    for told in (
        "a.nii.gz 14x12x6, ",
        "a.nii.gz 14x12x5",
        "b.nii.gz LPS 0.7x0.8x3 mm, ",
        "b.nii.gz LPS 1.4x0.8x3 mm",
        "c.nii.gz holds NaN or infinite values",
        "d.nii.gz holds the values 0, 1, 2; expected 0 and 1, 0 and 255, or grey only along edges",
        "; if these are labels, name all 2 with --labels",
        "e.nii.gz is cut off: 1,18",
        "f.nii.gz (7 bytes)",
        "g.nii.gz has 4 axes, 14x12x6x3; expected a 3D volume: if these are channels, write one file per channel",
        "h.nii.gz: SimpleITKIO cannot read it: its axes are not at right angles (shear)",
        "image without mask (1):",
        "1 file of the source left out (1 .png): images/j.png",
    ):
        assert told in message, message
    assert not any(raw.iterdir())


def test_images_of_several_formats_are_refused(tmp_path: Path, raw: Path) -> None:
    for name, ending in {"a": ".nii.gz", "b": ".nii", "c": ".mha"}.items():
        write_case(tmp_path / "images", tmp_path / "masks", name, ending)
    with pytest.raises(ValueError, match=r"2 .nii.gz, 1 .mha; nnU-Net takes one for a dataset"):
        own(tmp_path, raw)


def test_stacks_are_volumes_and_colour_tiffs_are_pictures(tmp_path: Path, raw: Path) -> None:
    for name in ("a", "b_2024"):
        write_case(tmp_path / "images", tmp_path / "masks", name, ".tif")
        write_pair(tmp_path / "flat", tmp_path / "truth", name, ".tif")
    (tmp_path / "images" / "a.json").write_text('{"spacing": [3, 0.5, 0.4]}')
    done = own(tmp_path, raw)
    description = json.loads((done.folder / "dataset.json").read_text())
    assert (description["file_ending"], description["overwrite_image_reader_writer"]) == (".tif", "Tiff3DIO")
    for folder in ("imagesTr", "labelsTr"):
        sizes = {
            name: json.loads((done.folder / folder / f"{name}.json").read_text())["spacing"] for name in ("a", "b_2024")
        }
        assert sizes == {"a": [3, 0.5, 0.4], "b_2024": [1, 1, 1]}
    assert "1 stack without a size of voxels, 1x1x1 is written" in " ".join(done.conversion.notes)
    (tmp_path / "second").mkdir()
    pictures = run("folders", tmp_path, tmp_path / "second", sources=(tmp_path / "flat", tmp_path / "truth")).folder
    assert cases_in(pictures, "Tr") == {"a", "b_2024"}
    # among stacks, what is none is refused by name
    write_pair(tmp_path / "images", tmp_path / "masks", "c", ".tif", mask_ending=".tif")
    tifffile.imwrite(tmp_path / "images" / "d.tif", np.zeros((*SHAPE, 3), np.uint8), photometric="rgb")
    write_array(box("d")[1], tmp_path / "masks" / "d.tif")
    (tmp_path / "third").mkdir()
    with pytest.raises(ValueError, match=r"c.tif is in colour \(axes YXS\)") as refused:
        own(tmp_path, tmp_path / "third")
    assert "d.tif is in colour (axes QYXS); expected a grey stack, and one file per channel" in str(refused.value)


def test_dicom_folders_are_refused_with_the_way_out(tmp_path: Path, raw: Path) -> None:
    write_case(tmp_path / "images", tmp_path / "masks", "a")[0].unlink()
    (tmp_path / "images" / "patient").mkdir()
    (tmp_path / "images" / "patient" / "IM0001").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ValueError, match=r"holds DICOM slices, such as IM0001; write a volume per scan.*dcm2niix"):
        own(tmp_path, raw)


def test_a_folder_of_volumes_as_well_as_pictures_is_refused(tmp_path: Path, raw: Path) -> None:
    write_case(tmp_path / "images", tmp_path / "masks", "a")
    write_pair(tmp_path / "images", tmp_path / "masks", "b")
    with pytest.raises(ValueError, match="hold pictures as well as volumes"):
        own(tmp_path, raw)


def test_labels_keep_their_numbers_and_the_same_call_reads_nothing_again(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcde":
        write_case(tmp_path / "images", tmp_path / "masks", name, labels=2)
    done = own(tmp_path, raw, labels=("liver", "tumour"), channels=("CT",))
    description = json.loads((done.folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert description["channel_names"] == {"0": "CT"}
    assert np.array_equal(read(done.folder / "labelsTr" / "a.nii.gz")[0], box("a", 2)[1])
    # as a kill would leave it
    (done.folder / "labelsTr" / "b.nii.gz").unlink()
    (done.folder / "dataset.json").unlink()
    monkeypatch.setattr(
        "nnunetv2_slicemamba.datasets.volume_files.read_volume", lambda *_: pytest.fail("a volume was read again")
    )
    again = own(tmp_path, raw, labels=("liver", "tumour"), channels=("CT",))
    assert again.written == 1
    assert cases_in(done.folder, "Tr", ".nii.gz") == set("abcde")
