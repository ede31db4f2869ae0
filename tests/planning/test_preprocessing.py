"""Preprocessed data are used where they fit, and redone where they do not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import pytest
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.common import folder_lock
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.planning.case_files import damaged_cases
from nnunetv2_slicemamba.planning.data import is_ready
from nnunetv2_slicemamba.planning.planner import SliceMambaPlannerS
from nnunetv2_slicemamba.planning.preprocessing import (
    complete_data,
    plan_and_preprocess,
    planner_class,
    refuse_unknown_configurations,
)

DISKS = "Dataset901_Disks"

pytestmark = pytest.mark.usefixtures("quick_nnunet")


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace / "nnUNet_preprocessed" / DISKS


def times(folder: Path) -> dict[str, int]:
    """Time at which every preprocessed file was written."""
    return {file.name: file.stat().st_mtime_ns for file in (folder / "nnUNetPlans_2d").iterdir() if file.is_file()}


def forget_marker(folder: Path) -> None:
    """Makes the data look like nnU-Net's own, or those of an earlier version."""
    shutil.rmtree(folder / "nnUNetPlans_2d" / "slicemamba")


def edit_plans(folder: Path, **changes: Any) -> None:
    """Lets the plans on disk say other things of the 2d configuration, whose data only they account for."""
    forget_marker(folder)
    file = folder / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"] |= changes
    file.write_text(json.dumps(plans))


def ready(folder: Path) -> bool:
    """True if the 2d data would be used as they are by plans made now."""
    file = folder / "nnUNetSliceMambaSPlans.json"
    plan_experiment_dataset(901, planner_class(SliceMambaPlannerS, False, file, protect=True), 8)
    return is_ready(PlansManager(json.loads(file.read_text())), "2d", folder)


def test_a_second_call_uses_the_data_that_are_there(folder: Path) -> None:
    before = times(folder)
    done = plan_and_preprocess(901, DISKS, "S", processes=1)
    assert (done.plans_name, done.reused, done.preprocessed) == ("nnUNetSliceMambaSPlans", ("2d",), ())
    assert times(folder) == before


def test_another_size_uses_the_same_data(folder: Path) -> None:
    before = times(folder)
    done = plan_and_preprocess(901, DISKS, "M", gpu_memory=6, processes=1)
    assert (done.plans_name, done.reused) == ("nnUNetSliceMambaMPlans", ("2d",))
    assert times(folder) == before


def test_data_that_nnunet_preprocessed_itself_are_used(folder: Path) -> None:
    forget_marker(folder)
    (folder / "nnUNetSliceMambaSPlans.json").unlink()
    plan_experiment_dataset(901)
    assert plan_and_preprocess(901, DISKS, "S", processes=1).reused == ("2d",)


def test_data_of_other_peoples_plans_with_other_settings_are_not_spoiled(folder: Path) -> None:
    forget_marker(folder)
    plans = json.loads((folder / "nnUNetSliceMambaSPlans.json").read_text())
    plans["configurations"]["2d"]["spacing"] = [2.0, 2.0]
    (folder / "nnUNetPlans.json").write_text(json.dumps({**plans, "plans_name": "nnUNetPlans"}))
    before = times(folder)
    with pytest.raises(ValueError, match="was preprocessed for the plans nnUNetPlans with other settings"):
        plan_and_preprocess(901, DISKS, "S", processes=1)
    assert times(folder) == before
    assert plan_and_preprocess(901, DISKS, "S", processes=1, clean=True).preprocessed == ("2d",)


def test_data_of_plans_that_differ_are_redone(folder: Path) -> None:
    edit_plans(folder, spacing=[2.0, 2.0])
    before = times(folder)
    done = plan_and_preprocess(901, DISKS, "S", processes=1)
    assert (done.reused, done.preprocessed) == ((), ("2d",))
    after = times(folder)
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)
    # and then they fit
    assert plan_and_preprocess(901, DISKS, "S", processes=1).reused == ("2d",)


def test_an_incomplete_folder_is_redone(folder: Path) -> None:
    before = times(folder)
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    assert plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1).preprocessed == ("2d",)
    assert times(folder).keys() == before.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing": [1.0, 1.5]},
        {"normalization_schemes": ["NoNormalization"]},
        {"use_mask_for_norm": [True]},
        {"preprocessor_name": "MyPreprocessor"},
        {"resampling_fn_data_kwargs": {"order": 1}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_that_decides_the_data_counts(changes: dict[str, Any], folder: Path) -> None:
    assert ready(folder)
    edit_plans(folder, **changes)
    assert not ready(folder)


def test_settings_that_do_not_decide_the_data_do_not_count(folder: Path) -> None:
    edit_plans(folder, batch_size=77, patch_size=[16, 16], architecture={})
    assert ready(folder)


def test_data_that_no_plans_account_for_are_not_used(folder: Path) -> None:
    forget_marker(folder)
    (folder / "nnUNetSliceMambaSPlans.json").unlink()
    assert not ready(folder)


def test_data_with_a_case_that_the_dataset_no_longer_has_are_not_used(folder: Path) -> None:
    shutil.copy(folder / "nnUNetPlans_2d" / "case_0.pkl", folder / "nnUNetPlans_2d" / "case_9.pkl")
    assert not ready(folder)


def test_files_that_are_no_plans_do_not_disturb(folder: Path) -> None:
    (folder / "notes.json").write_text("{")
    (folder / "list.json").write_text("[1]")
    assert ready(folder)


def test_a_configuration_that_inherits_uses_its_parents_data(folder: Path) -> None:
    file = folder / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_mine"] = {"inherits_from": "2d", "batch_size": 3}
    file.write_text(json.dumps(plans))
    done = plan_and_preprocess(901, DISKS, "S", ["2d_mine"], processes=1)
    assert (done.reused, done.preprocessed) == (("2d",), ())


def test_an_unknown_configuration_is_refused_with_those_that_exist(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"configuration 3d_fullres is not in the plans .*they have 2d"):
        plan_and_preprocess(901, DISKS, "S", ["2d", "3d_fullres"], processes=1)


def test_an_unknown_size_is_refused_before_anything_is_done(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="size 'XL' does not exist; give one of S, M, L"):
        plan_and_preprocess(901, DISKS, "XL", processes=1)
    assert not folder.exists()


def test_data_of_existing_plans_are_completed_without_planning_anew(folder: Path) -> None:
    plans, before = (folder / "nnUNetSliceMambaSPlans.json").read_bytes(), times(folder)
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    after = times(folder)
    assert after.keys() == before.keys()
    assert (folder / "nnUNetSliceMambaSPlans.json").read_bytes() == plans
    # and complete data are left alone
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    assert times(folder) == after


@pytest.mark.parametrize("raw", ["unset", "missing"])
def test_data_are_not_touched_where_only_preprocessed_ones_are_at_hand(
    raw: str, folder: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    before = times(folder)
    if raw == "unset":
        monkeypatch.delenv("nnUNet_raw")
    else:
        shutil.rmtree(workspace / "nnUNet_raw" / DISKS)
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    assert times(folder) == before


def test_a_configuration_that_no_planner_writes_is_refused_before_work(folder: Path) -> None:
    (folder / "dataset_fingerprint.json").unlink()
    with pytest.raises(ValueError, match="configuration '4d' does not exist; give -c some of 2d, 3d_lowres"):
        plan_and_preprocess(901, DISKS, "S", ["2d", "4d"], processes=1)
    assert not (folder / "dataset_fingerprint.json").exists()
    # a user's own, which the plans have, is known
    file = folder / "nnUNetSliceMambaSPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_large"] = {"inherits_from": "2d"}
    file.write_text(json.dumps(plans))
    refuse_unknown_configurations(["2d_large"], file)


def cut_pickle(data: Path) -> None:
    file = data / "case_1.pkl"
    file.write_bytes(file.read_bytes()[:-9])


def empty_pickle(data: Path) -> None:
    (data / "case_1.pkl").write_bytes(b"")


def cut_image(data: Path) -> None:
    file = data / "case_1.b2nd"
    file.write_bytes(file.read_bytes()[:-9])


def zero_labels(data: Path) -> None:
    file = data / "case_1_seg.b2nd"
    file.write_bytes(bytes(file.stat().st_size))


def lose_image(data: Path) -> None:
    (data / "case_1.b2nd").unlink()


DAMAGE = (cut_pickle, empty_pickle, cut_image, zero_labels, lose_image)


def arrays(data: Path) -> dict[str, bytes]:
    return {path.name: blosc2.open(str(path))[:].tobytes() for path in sorted(data.glob("*.b2nd"))}


@pytest.mark.parametrize("spoil", DAMAGE, ids=lambda one: one.__name__)
def test_a_damaged_case_is_found_and_made_anew_and_no_other(spoil: Callable[[Path], None], folder: Path) -> None:
    data = folder / "nnUNetPlans_2d"
    before, whole = times(folder), arrays(data)
    spoil(data)
    done = plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1)
    assert (done.preprocessed, done.reused, done.mended) == ((), ("2d",), {"2d": ("case_1",)})
    assert arrays(data) == whole
    assert damaged_cases(data, [path.stem for path in data.glob("*.pkl")]) == {}
    written = {name for name, at in times(folder).items() if at != before[name]}
    assert written == {"case_1.pkl", "case_1.b2nd", "case_1_seg.b2nd"}
    # and by the commands that use existing plans
    spoil(data)
    complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    assert arrays(data) == whole


def test_where_most_cases_are_damaged_all_are_made_anew(folder: Path) -> None:
    data = folder / "nnUNetPlans_2d"
    whole = arrays(data)
    for file in data.glob("*.pkl"):
        file.write_bytes(b"")
    done = plan_and_preprocess(901, DISKS, "S", ["2d"], processes=2)
    assert (done.preprocessed, done.mended) == (("2d",), {})
    assert arrays(data) == whole


def test_a_damaged_case_without_raw_data_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_image(folder / "nnUNetPlans_2d")
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ValueError, match=r"case_1.b2nd cannot be read .* without the raw data"):
        complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")


@pytest.mark.parametrize("name", ["dataset_fingerprint.json", "nnUNetSliceMambaSPlans.json"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_torn_fingerprint_or_plans_that_nobody_trained_with_are_made_anew(
    name: str, share: float, folder: Path
) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    done = plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1)
    assert done.set_aside == (folder / f"{name}.damaged",)
    assert json.loads((folder / name).read_text()).keys() == json.loads(whole).keys()
    assert (folder / f"{name}.damaged").read_bytes() == whole[: int(share * len(whole))]
    assert plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1).set_aside == ()


@pytest.mark.parametrize("kept_beside_the_training", [True, False])
def test_torn_plans_of_a_training_are_refused_with_the_remedy(
    kept_beside_the_training: bool, folder: Path, workspace: Path
) -> None:
    trained = workspace / "nnUNet_results" / DISKS / "SliceMambaTrainer__nnUNetSliceMambaSPlans__2d"
    (trained / "fold_0").mkdir(parents=True)
    (trained / "fold_0" / "checkpoint_best.pth").touch()
    file = trained / "plans.json" if kept_beside_the_training else folder / "nnUNetSliceMambaSPlans.json"
    torn = (folder / "nnUNetSliceMambaSPlans.json").read_bytes()[:500]
    file.write_bytes(torn)
    with pytest.raises(JsonFileError, match=rf"{file} is no JSON.*Networks were trained with these plans: restore"):
        plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1)
    assert file.read_bytes() == torn


def test_a_damaged_marker_makes_data_count_as_unknown(folder: Path) -> None:
    marker = folder / "nnUNetPlans_2d" / "slicemamba" / "made_with.json"
    marker.write_text("{")
    assert not ready(folder)
    assert plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1).preprocessed == ("2d",)
    assert ready(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"labels": [], "file_ending": ".png"}', b"\xef\xbb\xbf{}"])
def test_a_damaged_description_is_refused_before_anything_is_done(
    content: bytes, folder: Path, workspace: Path
) -> None:
    (workspace / "nnUNet_raw" / DISKS / "dataset.json").write_bytes(content)
    before = times(folder)
    with pytest.raises(JsonFileError, match="dataset.json"):
        plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1)
    assert times(folder) == before


@pytest.mark.parametrize("root", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_a_damaged_split_is_refused_by_name_before_anything_is_done(root: str, folder: Path, workspace: Path) -> None:
    split = '[{"train": ["case_0"], "val": ["case_1"]}]'
    for place in ("nnUNet_raw", "nnUNet_preprocessed"):
        (workspace / place / DISKS / "splits_final.json").write_text(split if place != root else split[:20])
    before = times(folder)
    with pytest.raises(JsonFileError, match=f"{root}/{DISKS}/splits_final.json is no JSON"):
        plan_and_preprocess(901, DISKS, "S", ["2d"], processes=1)
    assert times(folder) == before


@pytest.mark.parametrize("damaged", [False, True])
def test_who_plans_or_preprocesses_while_another_process_does_waits_and_uses_what_that_one_made(
    damaged: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "nnUNetPlans_2d" / "case_1.b2nd").read_bytes()
    if damaged:
        cut_image(folder / "nnUNetPlans_2d")
    holds = (
        "import sys, time; from pathlib import Path; from nnunetv2_slicemamba.common.folder_lock import in_use\n"
        "with in_use(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", holds, str(folder)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()

    def other_ends(seconds: float) -> None:
        (folder / "nnUNetPlans_2d" / "case_1.b2nd").write_bytes(whole)
        other.kill()
        other.communicate()

    monkeypatch.setattr(folder_lock.time, "sleep", other_ends)
    before = times(folder)
    if damaged:
        complete_data(DISKS, "nnUNetSliceMambaSPlans", "2d")
    else:
        assert plan_and_preprocess(901, DISKS, "S", processes=1).reused == ("2d",)
    assert f"waiting: {folder} is in use by process {other.pid} on " in capsys.readouterr().out
    assert {name for name, at in times(folder).items() if at != before[name]} == {"case_1.b2nd"}
