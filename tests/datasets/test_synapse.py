"""Synapse's scans come out with their spacing, the organs' numbers and TransUNet's test set."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunetv2_slicemamba.datasets.converters.synapse import ORGAN_LABELS, SLICES, missing_slices
from nnunetv2_slicemamba.datasets.volumes import read_h5
from tests.datasets.dataset_sources import cases_in, folds_in, run, scan, write_nifti, write_preprocessed

NII = ".nii.gz"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture(autouse=True)
def short_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated scans have 5 slices, so the published numbers of slices do not hold for them."""
    monkeypatch.setattr("nnunetv2_slicemamba.datasets.converters.synapse.SLICES", {})


def read(path: Path) -> tuple[np.ndarray, nibabel.Nifti1Image]:
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image


def test_nifti_keeps_its_grid_and_names_eight_organs(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "src", (1, 5, 6))
    folder = run("synapse", tmp_path / "src", raw).folder
    assert cases_in(folder, "Ts", NII) == {"case0001"}
    assert cases_in(folder, "Tr", NII) == {"case0005", "case0006"}
    # as nnU-Net reads them
    grids = [sitk.ReadImage(folder / f"{name}{NII}") for name in ("imagesTr/case0005_0000", "labelsTr/case0005")]
    assert np.allclose(grids[0].GetSpacing(), (0.7, 0.7, 3.0))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(grids[0], what)(), getattr(grids[1], what)()), what
    labels, header = read(folder / "labelsTr" / f"case0005{NII}")
    image, image_header = read(folder / "imagesTr" / f"case0005_0000{NII}")
    assert np.allclose(header.affine, image_header.affine)
    assert np.allclose(header.header.get_zooms(), (0.7, 0.7, 3.0))
    assert (labels.dtype, image.dtype) == (np.uint8, np.int16)
    original = scan(5, range(1, 14))[1].transpose(2, 1, 0)
    # BTCV's numbers of the organs in TransUNet's order
    for number, btcv in enumerate((8, 4, 3, 2, 6, 11, 1, 7), start=1):
        assert np.array_equal(labels == number, original == btcv)
    assert not labels[np.isin(original, (5, 9, 10, 12, 13))].any()
    description = json.loads((folder / "dataset.json").read_text())
    assert (description["labels"], description["channel_names"]) == (ORGAN_LABELS, {"0": "CT"})


def test_all_13_labels_on_request(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "src", (5, 6))
    folder = run("synapse", tmp_path / "src", raw, organs=13).folder
    labels, _ = read(folder / "labelsTr" / f"case0005{NII}")
    assert np.array_equal(labels, scan(5, range(1, 14))[1].transpose(2, 1, 0))
    assert len(json.loads((folder / "dataset.json").read_text())["labels"]) == 14


def test_slices_become_volumes_again(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_preprocessed(tmp_path / "src", train=(5, 6, 7), test=(1, 2))
    done = run("synapse", tmp_path / "src", raw)
    assert cases_in(done.folder, "Tr", NII) == {"case0005", "case0006", "case0007"}
    assert cases_in(done.folder, "Ts", NII) == {"case0001", "case0002"}
    image, label = scan(5, (5, 1, 7, 8, 3, 4, 6, 2))
    written, header = read(done.folder / "imagesTr" / f"case0005_0000{NII}")
    assert np.array_equal(written.transpose(2, 1, 0), image)
    assert np.array_equal(read(done.folder / "labelsTr" / f"case0005{NII}")[0].transpose(2, 1, 0), label)
    assert header.header.get_zooms() == (1.0, 1.0, 1.0)
    assert any("neither spacing nor orientation" in note for note in done.conversion.notes)
    assert not any("may number the organs otherwise" in note for note in done.conversion.notes)
    # the intensities are no Hounsfield units any more
    assert json.loads((done.folder / "dataset.json").read_text())["channel_names"] == {"0": "clipped_CT"}
    verify_dataset_integrity(str(done.folder), num_processes=1)
    assert "verify_dataset_integrity Done" in capsys.readouterr().out


def test_preprocessed_files_with_13_labels_are_renumbered(tmp_path: Path, raw: Path) -> None:
    write_preprocessed(tmp_path / "src", (5, 6), (1,), labels=range(1, 14))
    done = run("synapse", tmp_path / "src", raw)
    labels, _ = read(done.folder / "labelsTr" / f"case0005{NII}")
    original = scan(5, range(1, 14))[1].transpose(2, 1, 0)
    assert np.array_equal(labels == ORGAN_LABELS["liver"], original == 6)
    assert any("renumbered to eight organs" in note for note in done.conversion.notes)


def test_eight_organs_cannot_become_13(tmp_path: Path, raw: Path) -> None:
    write_preprocessed(tmp_path / "src", (5, 6), (1,))
    with pytest.raises(ValueError, match="holds the labels of eight organs only; --organs 13 needs all 13"):
        run("synapse", tmp_path / "src", raw, organs=13)


def test_another_order_of_the_organs_is_doubted(tmp_path: Path, raw: Path) -> None:
    write_preprocessed(tmp_path / "src", (5, 6), (1,), labels=(6, 7, 1, 5, 8, 2, 3, 4))
    notes = run("synapse", tmp_path / "src", raw).conversion.notes
    assert any(note.startswith("label 4 has the fewest voxels") for note in notes)


def test_all_that_is_wrong_with_the_scans_is_listed_at_once(tmp_path: Path, raw: Path) -> None:
    source = tmp_path / "src"
    write_nifti(source, (1, 2, 3, 4, 5, 6))
    images, labels = source / "RawData/Training/img", source / "RawData/Training/label"
    (images / "img0001.nii.gz").write_bytes((images / "img0001.nii.gz").read_bytes()[:900])
    write_nifti(tmp_path / "coarse", (2,), spacing=(0.7, 0.7, 5.0))
    (tmp_path / "coarse/RawData/Training/label/label0002.nii.gz").rename(labels / "label0002.nii.gz")
    array = np.zeros((14, 12, 4), np.uint8)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), labels / "label0003.nii.gz")
    (labels / "label0004.nii.gz").unlink()
    (images / "img0005.nii.gz").unlink()
    values = scan(6, range(1, 14))[1].transpose(2, 1, 0) + np.uint8(9)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-0.7, -0.7, 3.0, 1])), labels / "label0006.nii.gz")
    with pytest.raises(ValueError, match="cannot be converted") as refused:
        run("synapse", source, raw)
    message = str(refused.value)
    for told in (
        "6 problems found and nothing written",
        "unreadable or cut off (1):",
        "spacing or orientation differ (1):",
        "0.7x0.7x3 mm",
        "0.7x0.7x5 mm",
        "sizes differ (1):",
        "image without labels (1):",
        "labels without image (1):",
        "unexpected labels (1):",
        "expected whole numbers 0 to 13",
    ):
        assert told in message, told
    assert not any(raw.iterdir())


def test_missing_slices_and_damaged_files_are_listed_at_once(tmp_path: Path, raw: Path) -> None:
    source = tmp_path / "src"
    write_preprocessed(source, (5, 6), (1, 2))
    (source / "train_npz" / "case0005_slice002.npz").unlink()
    (source / "train_npz" / "case0005_slice004.npz").unlink()
    damaged = source / "train_npz" / "case0006_slice001.npz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (source / "test_vol_h5" / "case0002.npy.h5").unlink()
    volume = source / "test_vol_h5" / "case0001.npy.h5"
    volume.write_bytes(volume.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be converted") as refused:
        run("synapse", source, raw)
    message = str(refused.value)
    for told in (
        "case0005: 3 there, 2 missing (002, 004)",
        "listed, but not there (1):",
        "case0002",
        "unreadable or cut off (2):",
        "case0006_slice000.npz and 4 more",
        "case0001.npy.h5",
    ):
        assert told in message, told


def test_without_a_list_the_published_number_of_slices_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunetv2_slicemamba.datasets.converters.synapse.SLICES", SLICES)
    assert missing_slices(5, set(range(115)), set()) == [115, 116]
    assert missing_slices(5, set(range(117)), set()) == []
    # neither a list nor a scan that is not published may leave a gap: it would shift all that follows
    assert missing_slices(5, {0, 1, 3}, {f"case0005_slice{index:03d}" for index in (0, 1, 3)}) == [2]
    assert missing_slices(77, {0, 1, 3}, set()) == [2]


def test_scans_of_which_the_search_has_slices_validate_a_fold(tmp_path: Path, raw: Path) -> None:
    source = tmp_path / "src"
    write_preprocessed(source, (5, 6, 7), (1,))
    (source / "search_npz").mkdir()
    slices = sorted((source / "train_npz").glob("case0006*"))
    (source / "search_npz" / slices[0].name).write_bytes(slices[0].read_bytes())
    folder = run("synapse", source, raw).folder
    assert folds_in(folder) == [{"train": ["case0005", "case0007"], "val": ["case0006"]}]


def test_both_orders_of_axes_of_h5_files_are_read(tmp_path: Path) -> None:
    image, label = (array[:, :12, :12] for array in scan(1, range(1, 9)))
    for name, axes in (("first", (0, 1, 2)), ("last", (1, 2, 0))):
        with h5py.File(tmp_path / name, "w") as file:
            file["image"], file["label"] = image.transpose(axes), label.transpose(axes)
        read_image, read_label = read_h5(tmp_path / name)
        assert np.array_equal(read_image, image), name
        assert np.array_equal(read_label, label), name


def test_scans_without_labels_alone_are_refused(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "src", (61, 62))
    for label in (tmp_path / "src").rglob("label*.nii.gz"):
        label.unlink()
    with pytest.raises(ValueError, match="holds no scan with labels of synapse; expected img0001.nii.gz and label0001"):
        run("synapse", tmp_path / "src", raw)
    assert not any(raw.iterdir())


def test_scans_without_labels_and_mixed_layouts(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "src", (5, 6))
    testing = tmp_path / "src" / "RawData" / "Testing" / "img"
    testing.mkdir(parents=True)
    scanned = tmp_path / "src/RawData/Training/img/img0005.nii.gz"
    (testing / "img0061.nii.gz").write_bytes(scanned.read_bytes())
    notes = run("synapse", tmp_path / "src", raw).conversion.notes
    assert any("1 scan without labels (BTCV's own test set) left out" in note for note in notes)
    write_preprocessed(tmp_path / "src", (7,), (1,))
    with pytest.raises(ValueError, match="holds NIfTI volumes .* as well as preprocessed ones"):
        run("synapse", tmp_path / "src", tmp_path)
