"""Tests of folds that keep a patient's cases together."""

from __future__ import annotations

from pathlib import Path

import accuracy_data
import patients
import pytest


def test_folds_of_patients_keep_the_cases_of_each_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [f"patient{i:03d}_frame{j:02d}" for i in range(7) for j in (1, 12)]
    for kind, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (tmp_path / "heart" / kind).mkdir(parents=True)
        for case in cases:
            (tmp_path / "heart" / kind / f"{case}{ending}").touch()
    (tmp_path / "heart" / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    given = [str(tmp_path / "heart"), str(tmp_path / "folds")]
    assert patients.main(given) == 0
    splits = accuracy_data.read_splits(tmp_path / "folds")
    assert splits is not None
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == cases
    for split in splits:
        assert sorted(split["train"] + split["val"]) == cases
        assert not {case[:10] for case in split["train"]} & {case[:10] for case in split["val"]}
    assert (tmp_path / "folds" / "labelsTr" / "patient003_frame01.nii.gz").is_file()
    assert accuracy_data.configuration_of(tmp_path / "folds") == "3d_fullres"
    assert patients.main([*given, "--patient", "heart"]) == 2
    assert "give another --patient" in capsys.readouterr().out
