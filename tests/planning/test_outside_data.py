"""A baseline's preprocessed data are used as they are, in any format, and never made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pipeline.preparing import Planning, is_planned, named_selections, prepare
from tests.cli.commands import called

PLANS = "nnUNetSliceMambaSPlans"
COMMAND = "nnUNetv2_preprocess -d 901 -plans_name OtherPlans -c 2d"


@pytest.fixture
def data(workspace: Path) -> Path:
    """Data of another project's plans."""
    folder = workspace / "nnUNet_preprocessed" / "Dataset901_Disks"
    plans = json.loads((folder / f"{PLANS}.json").read_text()) | {"plans_name": "OtherPlans"}
    (folder / "OtherPlans.json").write_text(json.dumps(plans))
    return folder / plans["configurations"]["2d"]["data_identifier"]


def prepared() -> bool:
    """Whether a baseline's data are ready, as a run and a job's step see them."""
    prepare("901", "2d", "OtherPlans", Planning("S", "paper", 8.0), Console(quiet=True), sliced=False)
    return is_planned(named_selections("901", "2d", ["0"], "OtherPlans", any_network=True)[0], sliced=False)


def content(data: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in data.parent.rglob("*") if file.is_file()}


def test_incomplete_data_are_refused_with_what_is_missing_and_stay(data: Path) -> None:
    assert prepared()
    case = sorted(data.glob("*.pkl"))[0]
    case.unlink()
    before = content(data)
    with pytest.raises(InputError, match=f"lacks 1 of 5 training cases: {case.stem}.*'{COMMAND}'"):
        prepared()
    assert content(data) == before
    data.rename(data.with_name("elsewhere"))
    with pytest.raises(InputError, match=f"there is no .*{data.name}.*'{COMMAND}'"):
        prepared()


def test_a_damaged_case_and_data_of_other_settings_are_refused(data: Path) -> None:
    marker = data / "slicemamba" / "made_with.json"
    settings = marker.read_text()
    marker.write_text(json.dumps(json.loads(settings) | {"spacing": [7.0, 7.0]}))
    with pytest.raises(InputError, match="was preprocessed with other settings"):
        prepared()
    marker.write_text(settings)
    sorted(data.glob("*.b2nd"))[0].write_bytes(b"")
    planned = is_planned(named_selections("901", "2d", ["0"], "OtherPlans", any_network=True)[0], sliced=False)
    assert planned, "no case is opened to show the state of a run"
    with pytest.raises(InputError, match=r"\.b2nd is empty"):
        prepared()


@pytest.mark.parametrize("more", [True, False])
def test_data_with_other_cases_or_of_another_format_are_used(data: Path, more: bool) -> None:
    files = [file for file in data.iterdir() if file.is_file()]
    for file in files:
        if more and file.suffix == ".pkl":
            (data / "more.pkl").write_bytes(file.read_bytes())
        elif not more:
            file.rename(file.with_suffix(".zarr" if file.suffix == ".b2nd" else ".yaml"))
    before = content(data)
    assert prepared()
    assert content(data) == before


@pytest.mark.parametrize("name", ["nnUNetPlans", "nnUNetResEncUNetLPlans", "nnUNetResEncUNetPlans"])
def test_plans_of_ours_do_not_take_a_name_of_nnunets_own(name: str, workspace: Path) -> None:
    ended = called("plan", "-d", "901", "-c", "2d", "-p", name)
    assert (ended.code, ended.message) == (
        2,
        f"error: {name} is a name of nnU-Net's own plans: give SliceMamba plans another one with -p",
    )
