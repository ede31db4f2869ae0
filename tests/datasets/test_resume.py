"""An interrupted conversion continues, and what it did not make is never overwritten."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from nnunetv2_slicemamba.datasets import convert as module
from nnunetv2_slicemamba.datasets.cases import Case
from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.write_case import write_case
from tests.datasets.dataset_sources import cases_in, run, write_pair, write_parts

STEMS = [f"case{i}" for i in range(8)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_parts(tmp_path / "source", {"train": STEMS[:6], "val": STEMS[6:]})
    (tmp_path / "raw").mkdir()
    return tmp_path / "source"


@pytest.fixture
def raw(source: Path) -> Path:
    return source.parent / "raw"


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_ino, p.read_bytes()) for p in sorted(folder.rglob("*.png"))}


def stop_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the given case."""
    written: list[str] = []

    def write(case: Case, *arguments: object) -> None:
        if len(written) == number:
            raise KeyboardInterrupt
        write_case(case, *arguments)  # type: ignore[arg-type]
        written.append(case.name)

    monkeypatch.setattr(module, "write_case", write)


def test_the_same_call_writes_only_what_is_missing_and_checks_nothing_again(
    source: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run("isic2017", source, raw)
    folder = raw / "Dataset700_ISIC2017"
    before = files(folder)
    assert len(before) == 6
    # nnU-Net refuses a half-written dataset
    assert not (folder / "dataset.json").exists()
    # what a killed process leaves behind
    (folder / "imagesTr" / ".part_1_case7_0000.png").write_bytes(b"half")
    monkeypatch.setattr(ImageConverter, "prepare", lambda *_: pytest.fail("checked again"))
    done = run("isic2017", source, raw)
    assert done.written == 5
    assert cases_in(folder, "Tr") == set(STEMS)
    assert not list(folder.rglob(".part*"))
    after = files(folder)
    assert {name: after[name] for name in before} == before
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 8
    assert run("isic2017", source, raw).written == 0


@pytest.mark.parametrize("ending", (".json", ".png"))
def test_a_file_that_is_being_written_has_no_final_name_yet(
    source: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    rename = os.replace

    def fail(part: Path, target: Path) -> None:
        if target.suffix == ending:
            raise OSError("no space left on device")
        rename(part, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            run("isic2017", source, raw)
    assert files(raw) == {}
    assert len(cases_in(run("isic2017", source, raw).folder, "Tr")) == 8


def test_the_result_does_not_depend_on_interruption_or_the_number_of_processes(
    source: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    run("isic2017", source, tmp_path / "whole", processes=4)
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            run("isic2017", source, raw)
    run("isic2017", source, raw)

    def contents(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert contents(raw) == contents(tmp_path / "whole")


def test_other_options_are_refused_with_both_values(source: Path, raw: Path) -> None:
    run("isic2017", source, raw)
    with pytest.raises(ValueError, match=r"converted with other options \(resize: None, now \[32, 32\]\); remove it"):
        run("isic2017", source, raw, resize=(32, 32))


def test_a_source_that_changed_is_refused(source: Path, raw: Path) -> None:
    run("isic2017", source, raw)
    write_pair(source / "train" / "images", source / "train" / "masks", "late")
    with pytest.raises(ValueError, match="whose files have changed since"):
        run("isic2017", source, raw)


def test_a_foreign_target_is_left_alone(source: Path, raw: Path) -> None:
    foreign = raw / "Dataset700_ISIC2017"
    foreign.mkdir()
    (foreign / "dataset.json").write_text("{}")
    with pytest.raises(
        ValueError, match="exists and was not made by slicemamba convert; remove it, or give another ID"
    ):
        run("isic2017", source, raw)
    assert [path.name for path in foreign.iterdir()] == ["dataset.json"]


@pytest.mark.parametrize("root", ("raw", "preprocessed", "results"))
def test_an_id_that_another_dataset_has_is_refused(source: Path, raw: Path, tmp_path: Path, root: str) -> None:
    (tmp_path / root / "Dataset700_Other").mkdir(parents=True)
    with pytest.raises(ValueError, match="ID 700 is taken by Dataset700_Other"):
        run("isic2017", source, raw, preprocessed=tmp_path / "preprocessed", results=tmp_path / "results")


@pytest.mark.parametrize("other", ("Dataset7001_Other", "Dataset70_Other"))
def test_an_id_that_nnunet_takes_for_anothers_is_refused(source: Path, raw: Path, other: str) -> None:
    (raw / other).mkdir()
    if other == "Dataset70_Other":  # two digits are no data set
        assert run("isic2017", source, raw).written == 8
        return
    with pytest.raises(ValueError, match=r"ID 700 and that of Dataset7001_Other in \S+ begin with the same digits"):
        run("isic2017", source, raw)


def test_another_split_in_the_preprocessed_folder_is_refused(source: Path, raw: Path, tmp_path: Path) -> None:
    other = tmp_path / "pre" / "Dataset700_ISIC2017"
    other.mkdir(parents=True)
    (other / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    with pytest.raises(ValueError, match="holds 1 fold of another split"):
        run("isic2017", source, raw, preprocessed=tmp_path / "pre")
    assert not list(raw.iterdir())


def test_a_split_that_was_left_behind_is_refused_where_nnunet_is_to_draw_one(
    source: Path, raw: Path, tmp_path: Path
) -> None:
    first = run("isic2017", source, raw, split="random:1", preprocessed=tmp_path / "pre")
    shutil.rmtree(first.folder)
    with pytest.raises(ValueError, match="holds 5 folds of another split"):
        run("isic2017", source, raw, split="none", preprocessed=tmp_path / "pre")
    assert not list(raw.iterdir())


def test_the_split_that_nnunet_drew_meanwhile_is_its_own(source: Path, raw: Path, tmp_path: Path) -> None:
    preprocessed = tmp_path / "pre" / "Dataset700_ISIC2017"
    run("isic2017", source, raw, split="none", preprocessed=tmp_path / "pre")
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text('[{"train": ["case0"], "val": ["case1"]}]')
    assert run("isic2017", source, raw, split="none", preprocessed=tmp_path / "pre").written == 0


def test_where_the_split_is_there_nothing_is_written_beside_the_preprocessed_data(
    source: Path, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("isic2017", source, raw, preprocessed=tmp_path / "pre")
    monkeypatch.setattr("nnunetv2_slicemamba.common.folders.is_writable", lambda folder: False)
    assert run("isic2017", source, raw, preprocessed=tmp_path / "pre").written == 0
    shutil.rmtree(tmp_path / "pre" / "Dataset700_ISIC2017")
    with pytest.raises(ValueError, match="nnUNet_preprocessed=.* is not writable"):
        run("isic2017", source, raw, preprocessed=tmp_path / "pre")


def test_of_two_conversions_into_one_folder_the_second_is_that_of_the_first_or_refused(
    source: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find nothing there, as checking a source takes its time."""
    prepare, earlier = ImageConverter.prepare, [{}, {"resize": (8, 8)}]

    def prepare_while_another_converts(self: ImageConverter, *arguments: object) -> object:
        if earlier:
            run("isic2017", source, raw, **earlier.pop(0))
        return prepare(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageConverter, "prepare", prepare_while_another_converts)
    options = list(earlier)
    earlier.pop()
    assert run("isic2017", source, raw).written == 0
    folder = raw / "Dataset700_ISIC2017"
    assert not (folder / ".in_use").exists()
    shutil.rmtree(folder)
    earlier.append(options[1])
    with pytest.raises(ValueError, match="was converted with other options .resize"):
        run("isic2017", source, raw)
    assert cases_in(folder, "Tr")
