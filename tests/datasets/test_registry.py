"""A converter is one file: the command lists it, its help names it, and it converts, without another line anywhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunetv2_slicemamba.cli.main import _program, main
from nnunetv2_slicemamba.datasets import converters
from nnunetv2_slicemamba.datasets.registry import all_converters
from tests.datasets.dataset_sources import cases_in, write_pair

NEW = '''"""A dataset that only this test knows."""

from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.layouts import flat

CONVERTER = ImageConverter(
    key="{key}",
    name="Moles",
    labels=("mole",),
    layouts=(flat("{{images,masks}}", train=4),),
    home="example.org/moles",
    licence="CC0",
    reference="nobody, 2026",
    split="none: nnU-Net's five random folds",
)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One more folder of converters, forgotten after the test."""
    folder = tmp_path / "converters"
    folder.mkdir()
    monkeypatch.setattr(converters, "__path__", [*converters.__path__, str(folder)])
    all_converters.cache_clear()
    _program.cache_clear()
    yield folder
    for file in folder.glob("*.py"):
        sys.modules.pop(f"{converters.__name__}.{file.stem}", None)
        vars(converters).pop(file.stem, None)
    all_converters.cache_clear()
    _program.cache_clear()


def test_a_new_file_is_all_that_a_new_dataset_needs(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "moles.py").write_text(NEW.format(key="moles"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    for stem in "abc":
        write_pair(tmp_path / "download" / "images", tmp_path / "download" / "masks", stem)

    def printed(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["convert", *map(str, arguments)])
        assert not ended.value.code
        return capsys.readouterr().out

    # listed behind the publication's datasets, before one's own folders
    helped = printed("--help")
    assert helped.index("synapse") < helped.index("moles") < helped.index("folders")
    listed = printed("--list")
    for told in ("layout  {images,masks}", "where   example.org/moles", "terms   CC0"):
        assert told in listed[listed.index("moles") - 2 :]
    told = printed("moles", tmp_path / "download", "-d", 7)
    assert "train: 3 images, the complete source has 4" in told
    assert cases_in(tmp_path / "raw" / "Dataset007_Moles", "Tr") == set("abc")
    labels = json.loads((tmp_path / "raw" / "Dataset007_Moles" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "mole": 1}


def test_a_file_without_a_converter_is_named(folder: Path) -> None:
    (folder / "moles.py").write_text("OTHER = 1\n")
    with pytest.raises(ImportError, match=r"converters\.moles has no CONVERTER"):
        all_converters()


def test_a_key_that_is_taken_is_refused(folder: Path) -> None:
    (folder / "moles.py").write_text(NEW.format(key="kvasir"))
    with pytest.raises(ImportError, match="has the key 'kvasir', which another converter has, too"):
        all_converters()


def test_a_converters_file_is_named_like_its_key() -> None:
    files = {file.stem for file in Path(converters.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {converter.key.replace("-", "_") for converter in all_converters()}


def test_names_of_new_datasets_differ_and_can_be_folders() -> None:
    names = [converter.name for converter in all_converters()]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) for name in names)
