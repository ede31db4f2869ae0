"""Names of cases: any script, one name for the two Unicode forms, different names for different images."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_slicemamba.datasets.cases import LONGEST, safe_name, safe_names
from tests.datasets.dataset_sources import cases_in, run, write_pair


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("ISIC_0000001", "ISIC_0000001"),
        ("benign (1)", "benign__1_"),
        ("La\u0308sion", "Läsion"),
        ("病人一", "病人一"),
        ("हिन्दी", "हिन्दी"),
        ("-rf", "_rf"),
        ("$(id);a\nb/{0}", "__id__a_b__0_"),
    ],
)
def test_letters_of_every_script_stay_and_what_shells_read_goes(stem: str, name: str) -> None:
    assert safe_name(stem) == name


def test_names_of_any_length_fit_into_a_file_system() -> None:
    names = safe_names(["病" * 100, "病" * 99, "x" * 250])
    assert len({name.casefold() for name in names.values()}) == 3
    assert all(len(name.encode()) <= LONGEST + 9 for name in names.values())


STEMS = st.text(st.sampled_from("aAäÄß\u1e9e_-+ \u0308病\u0660\u017fs"), max_size=4)


@given(st.sets(STEMS.map(lambda stem: unicodedata.normalize("NFC", stem))))
def test_different_images_never_become_one_case(stems: set[str]) -> None:
    names = safe_names(stems)
    assert set(names) == stems
    assert len({name.casefold() for name in names.values()}) == len(stems)


def test_images_and_masks_in_the_two_unicode_forms_are_pairs(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for number in range(3):
        image, mask = write_pair(tmp_path / "images", tmp_path / "masks", f"L\u00e4sion_{number}")
        mask.rename(mask.with_name(unicodedata.normalize("NFD", mask.name)))
        assert image.name != unicodedata.normalize("NFD", mask.name)
    folder = run("folders", tmp_path, tmp_path / "raw", sources=(tmp_path / "images", tmp_path / "masks")).folder
    assert cases_in(folder, "Tr") == {f"L\u00e4sion_{number}" for number in range(3)}


def test_one_name_in_both_forms_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for stem in ("L\u00e4sion", "La\u0308sion"):
        write_pair(tmp_path / "images", tmp_path / "masks", stem)
    with pytest.raises(ValueError, match=r"duplicate name \(2\)"):
        run("folders", tmp_path, tmp_path / "raw", sources=(tmp_path / "images", tmp_path / "masks"))


def test_names_that_only_differ_in_other_characters_become_two_cases(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    for stem in ("a b", "a+b", "c"):
        write_pair(tmp_path / "images", tmp_path / "masks", stem)
    done = run("folders", tmp_path, tmp_path / "raw", "random:0", sources=(tmp_path / "images", tmp_path / "masks"))
    cases = cases_in(done.folder, "Tr")
    assert len(cases) == 3
    assert "c" in cases
    assert all(case == "c" or case.startswith("a_b_") for case in cases)
    folds = json.loads((done.folder / "splits_final.json").read_text())
    assert {case for fold in folds for case in fold["val"]} == cases


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names but text")
def test_names_that_are_no_text_become_cases_too(tmp_path: Path) -> None:
    """Those of another encoding than the locale's, which may be C in a batch job."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    (tmp_path / "raw").mkdir()
    write_pair(images, masks, "a")
    for folder in (images, masks):
        for raw in (b"\xe4.png", b"\xf6.png"):
            shutil.copy(folder / "a.png", os.fsencode(folder) + b"/" + raw)
    folder = run("folders", tmp_path, tmp_path / "raw", sources=(images, masks), name="Own", labels=("ball",)).folder
    cases = cases_in(folder, "Tr")
    assert len(cases) == 3
    assert all(name == "a" or re.fullmatch(r"__[0-9a-f]{8}", name) for name in cases)
