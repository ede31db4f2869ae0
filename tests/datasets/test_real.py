"""Real images, laid out as datasets that cannot be had freely are distributed, come out of the command unchanged."""

from __future__ import annotations

import json
import multiprocessing.dummy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from nnunetv2_slicemamba.cli.main import main
from nnunetv2_slicemamba.datasets.converters.synapse import BTCV_LABELS, ORGAN_LABELS
from tests.datasets.dataset_sources import cases_in, folds_in
from tests.datasets.real_layouts import (
    BTCV_LABELLED,
    BTCV_UNLABELLED,
    SYNAPSE_TEST_ORDER,
    dermoscopy,
    eight_organs,
    framed,
    real_pairs,
    renumbered,
    scan_of,
    voxels,
    write_btcv,
    write_images_and_masks,
    write_isic2018,
    write_transunet,
    write_vmunet,
)

NII = ".nii.gz"
TEST_SCANS = {f"case{number:04d}" for number in SYNAPSE_TEST_ORDER}
TRAIN_SCANS = {f"case{number:04d}" for number in BTCV_LABELLED} - TEST_SCANS
Convert = Callable[..., tuple[Path, str]]


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Runs the command, has nnU-Net check the result, and returns the dataset's folder and what was printed."""
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("COLUMNS", "200")
    # the same checks in threads: each process that nnU-Net starts for them would import torch anew
    threads = SimpleNamespace(get_context=lambda method: multiprocessing.dummy)
    monkeypatch.setattr("nnunetv2.experiment_planning.verify_dataset_integrity.multiprocessing", threads)
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", multiprocessing.dummy.Pool)

    def run(*arguments: object) -> tuple[Path, str]:
        with pytest.raises(SystemExit) as ended:
            main(["convert", *(str(argument) for argument in arguments), "-d", "700", "-np", "1"])
        assert not ended.value.code
        printed = capsys.readouterr().out
        (folder,) = (tmp_path / "raw").glob("Dataset700_*")
        verify_dataset_integrity(str(folder), num_processes=1)
        assert "verify_dataset_integrity Done" in capsys.readouterr().out
        return folder, printed

    return run


def assert_same_images(folder: Path, subset: str, sources: dict[str, tuple[Path, Path]]) -> None:
    """The subset holds these images and no others; nnU-Net reads the sources' pixels, and their masks as 0 and 1."""
    assert cases_in(folder, subset) == set(sources)
    reader = NaturalImage2DIO()
    for name, (image, mask) in sources.items():
        written, _ = reader.read_images((str(folder / f"images{subset}" / f"{name}_0000.png"),))
        # (channel, 1, H, W)
        assert np.array_equal(written[:, 0].transpose(1, 2, 0), np.asarray(Image.open(image).convert("RGB"))), name
        label, _ = reader.read_seg(str(folder / f"labels{subset}" / f"{name}.png"))
        truth = np.asarray(Image.open(mask))
        assert set(np.unique(truth)) == {0, 255}
        assert np.array_equal(label[0, 0], truth == 255), name


def test_isic_2018s_archives_train_validate_and_hold_out_as_named(tmp_path: Path, convert: Convert) -> None:
    real = dermoscopy()
    stems = sorted(real)[:40]
    parts = {"Training": stems[:24], "Validation": stems[24:30], "Test": stems[30:]}
    write_isic2018(tmp_path / "ISIC 2018", parts)
    folder, printed = convert("isic2018", tmp_path / "ISIC 2018")
    assert "30 training cases, 10 held out; 40 written now" in printed
    assert "train: 24 images, the complete source has 2594" in printed
    assert_same_images(folder, "Tr", {stem: real[stem] for stem in stems[:30]})
    assert_same_images(folder, "Ts", {stem: real[stem] for stem in stems[30:]})
    assert folds_in(folder) == [{"train": stems[:24], "val": stems[24:30]}]


@pytest.mark.parametrize("suffix", ("", "_segmentation"))
def test_vmunets_folders_keep_their_division_and_search_on_the_search_folder(
    tmp_path: Path, convert: Convert, suffix: str
) -> None:
    real = dermoscopy()
    stems = sorted(real)[:26]
    train, val, search, test = stems[:14], stems[14:20], stems[:5], stems[20:]
    parts = {"train": train, "val": val, "search": search} | ({"test": test} if suffix else {})
    write_vmunet(tmp_path / "data" / "isic17", parts, suffix)
    folder, printed = convert("isic2017", tmp_path / "data")
    assert "search folder: 5 images, 5 copies of training images" in printed
    assert "'slicemamba search -f 1' measures on these images" in printed
    assert_same_images(folder, "Tr", {stem: real[stem] for stem in train + val})
    assert_same_images(folder, "Ts", {stem: real[stem] for stem in test} if suffix else {})
    assert folds_in(folder) == [{"train": train, "val": val}, {"train": train[5:], "val": search}]


def test_uwf_rhss_folders_hold_the_test_folder_out(tmp_path: Path, convert: Convert) -> None:
    real = real_pairs("kvasir", "images", "masks")
    stems = sorted(real)
    parts = {"train": stems[:14], "val": stems[14:18], "test": stems[18:]}
    for part, chosen in parts.items():
        write_images_and_masks(tmp_path / "UWF-RHS" / part, [real[stem] for stem in chosen])
    folder, _ = convert("uwf-rhs", tmp_path / "UWF-RHS")
    assert_same_images(folder, "Tr", {stem: real[stem] for stem in stems[:18]})
    assert_same_images(folder, "Ts", {stem: real[stem] for stem in stems[18:]})
    assert folds_in(folder) == [{"train": stems[:14], "val": stems[14:18]}]
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "hemorrhage": 1}


def test_uwf_rhss_undivided_images_all_train(tmp_path: Path, convert: Convert) -> None:
    real = real_pairs("clinicdb", "Original", "Ground Truth")
    write_images_and_masks(tmp_path / "UWF-RHS", list(real.values()))
    folder, printed = convert("uwf-rhs", tmp_path / "UWF-RHS")
    assert_same_images(folder, "Tr", real)
    assert "nnU-Net draws five folds of the 24 training cases" in printed
    assert not (folder / "splits_final.json").exists()


@pytest.mark.parametrize("organs", (8, 13))
def test_btcvs_30_scans_keep_their_grid_and_hold_transunets_test_set_out(
    tmp_path: Path, convert: Convert, organs: int
) -> None:
    write_btcv(tmp_path / "Abdomen", BTCV_LABELLED, BTCV_UNLABELLED)
    folder, printed = convert("synapse", tmp_path / "Abdomen", "--organs", organs)
    assert "20 scans without labels (BTCV's own test set) left out" in printed
    assert cases_in(folder, "Tr", NII) == TRAIN_SCANS
    assert cases_in(folder, "Ts", NII) == TEST_SCANS
    names = ORGAN_LABELS if organs == 8 else BTCV_LABELS
    assert json.loads((folder / "dataset.json").read_text())["labels"] == names
    seen: set[int] = set()
    for number in BTCV_LABELLED:
        name, subset = f"case{number:04d}", "Ts" if number in SYNAPSE_TEST_ORDER else "Tr"
        source = scan_of(number)[0]
        image = folder / f"images{subset}" / f"{name}_0000{NII}"
        assert image.read_bytes() == source.read_bytes()
        labels = folder / f"labels{subset}" / f"{name}{NII}"
        assert np.array_equal(nibabel.load(labels).affine, nibabel.load(source).affine)
        original = renumbered(number, 13)
        seen |= set(np.unique(original))
        assert np.array_equal(voxels(labels), eight_organs(original) if organs == 8 else original), name
    assert seen == set(range(14))


@pytest.mark.parametrize(("highest", "lists"), ((8, "lists/lists_Synapse"), (13, "lists/list_Synapse")))
def test_transunets_slices_and_volumes_become_the_scans_again(
    tmp_path: Path, convert: Convert, highest: int, lists: str
) -> None:
    write_transunet(tmp_path / "Synapse", highest, lists)
    folder, printed = convert("synapse", tmp_path / "Synapse")
    assert "18 training cases, 12 held out; 30 written now" in printed
    assert ("the labels are BTCV's 13, renumbered to eight organs" in printed) == (highest == 13)
    assert cases_in(folder, "Tr", NII) == TRAIN_SCANS
    assert cases_in(folder, "Ts", NII) == TEST_SCANS
    reader = SimpleITKIO()
    for number in BTCV_LABELLED:
        name, subset = f"case{number:04d}", "Ts" if number in SYNAPSE_TEST_ORDER else "Tr"
        image, label = framed(number, highest)
        written, _ = reader.read_images((str(folder / f"images{subset}" / f"{name}_0000{NII}"),))
        assert np.array_equal(written[0], image), name
        expected = eight_organs(label) if highest == 13 else label
        assert np.array_equal(reader.read_seg(str(folder / f"labels{subset}" / f"{name}{NII}"))[0][0], expected), name


def test_slices_for_the_search_make_a_fold_of_their_whole_scans(tmp_path: Path, convert: Convert) -> None:
    write_transunet(tmp_path / "Synapse")
    (tmp_path / "Synapse" / "search_npz").mkdir()
    for number in (5, 21):
        for path in sorted((tmp_path / "Synapse" / "train_npz").glob(f"case{number:04d}_*"))[::4]:
            (tmp_path / "Synapse" / "search_npz" / path.name).write_bytes(path.read_bytes())
    folder, _ = convert("synapse", tmp_path / "Synapse")
    searched = ["case0005", "case0021"]
    assert folds_in(folder) == [{"train": sorted(TRAIN_SCANS - set(searched)), "val": searched}]
