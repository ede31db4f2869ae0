"""Data that contradict the plans are never taken for ready, whatever happened in between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset, preprocess_dataset
from nnunetv2.preprocessing.preprocessors import default_preprocessor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunetv2_slicemamba.planning import preprocessing
from nnunetv2_slicemamba.planning.preprocessing import Planned, complete_data, plan_and_preprocess

DISKS, SLABS, PLANS = "Dataset901_Disks", "Dataset902_Slabs", "nnUNetSliceMambaSPlans"

pytestmark = pytest.mark.usefixtures("quick_nnunet")


class Killed(BaseException):
    """Ends a command at once, as a signal does."""


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace / "nnUNet_preprocessed" / DISKS


def plan(configurations: list[str] | None = None, dataset: str = DISKS, **options: Any) -> Planned:
    return plan_and_preprocess(int(dataset[7:10]), dataset, "S", configurations, processes=1, **options)


def name_channel(folder: Path, name: str) -> None:
    """Corrects the raw dataset.json: "noNorm" lets new plans leave the intensities as they are."""
    file = folder.parents[1] / "nnUNet_raw" / folder.name / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"channel_names": {"0": name}}))


def change_plans(folder: Path, configuration: str, name: str = PLANS, **changes: Any) -> None:
    """Lets plans say other things of a configuration, which is added if they do not have it."""
    file = folder / f"{name}.json"
    plans = json.loads(file.read_text())
    plans["configurations"].setdefault(configuration, {}).update(changes)
    file.write_text(json.dumps(plans))


def forget_marker(folder: Path, identifier: str = "nnUNetPlans_2d") -> None:
    """Makes data look like nnU-Net's own, or those of an earlier version."""
    shutil.rmtree(folder / identifier / "slicemamba", ignore_errors=True)


def normalized(data: Path) -> bool:
    """True if the arrays have z-scores and not grey values."""
    means = {abs(float(blosc2.open(str(file))[:].mean())) < 1 for file in data.glob("case_?.b2nd")}
    assert len(means) == 1
    return means.pop()


def fits(folder: Path, configuration: str = "2d") -> bool:
    """True if all five cases are there, with the intensities that the plans ask for."""
    settings = json.loads((folder / f"{PLANS}.json").read_text())["configurations"][configuration]
    data = folder / settings["data_identifier"]
    assert len(list(data.glob("case_?.pkl"))) == len(list(data.glob("case_?.b2nd"))) == 5
    return normalized(data) == (settings["normalization_schemes"] == ["ZScoreNormalization"])


def size_of(data: Path) -> tuple[int, ...]:
    return blosc2.open(str(data / "case_0.b2nd")).shape[2:]


def written(data: Path) -> int:
    """Time at which the first case was written."""
    return (data / "case_0.b2nd").stat().st_mtime_ns


@pytest.mark.parametrize("marked", [True, False], ids=["ours", "unmarked"])
def test_data_left_out_when_plans_changed_are_redone_later(marked: bool, workspace: Path) -> None:
    slabs = workspace / "nnUNet_preprocessed" / SLABS
    plan(dataset=SLABS)
    name_channel(slabs, "noNorm")
    if not marked:
        forget_marker(slabs)
    assert plan(["3d_fullres"], SLABS).preprocessed == ("3d_fullres",)
    assert not fits(slabs, "2d")
    done = plan(dataset=SLABS)
    assert (done.preprocessed, done.reused) == (("2d",), ("3d_fullres",))
    assert fits(slabs, "2d")
    assert fits(slabs, "3d_fullres")
    assert plan(dataset=SLABS).preprocessed == ()


def kill_before_writing_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExperimentPlanner, "save_plans", killed)


def kill_before_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "preprocess_dataset", killed)


def kill_before_the_first_case_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kill_when_cases_go(monkeypatch, 0)


def kill_after_the_first_case_went(monkeypatch: pytest.MonkeyPatch) -> None:
    kill_when_cases_go(monkeypatch, 1)


def kill_when_cases_go(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    unlink, gone = Path.unlink, []

    def unlink_some(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".pkl":
            if len(gone) == allowed:
                raise Killed
            gone.append(self)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_some)


def kill_while_nnunet_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    def delete_folders_and_arrays(path: str) -> None:
        for item in Path(path).iterdir():
            if item.is_dir():
                shutil.rmtree(item)
            elif item.suffix != ".pkl":
                item.unlink()
        raise Killed

    functions = type("shutil", (), {"rmtree": staticmethod(delete_folders_and_arrays)})
    monkeypatch.setattr(default_preprocessor, "shutil", functions)


def kill_as_nnunet_begins_to_delete(monkeypatch: pytest.MonkeyPatch) -> None:
    def delete_folders(path: str) -> None:
        for item in Path(path).iterdir():
            if item.is_dir():
                shutil.rmtree(item)
        raise Killed

    monkeypatch.setattr(default_preprocessor, "shutil", type("", (), {"rmtree": staticmethod(delete_folders)}))


def kill_while_cases_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    save = DefaultPreprocessor.run_case_save

    def fail_at_one(self: DefaultPreprocessor, output: str, *args: Any) -> None:
        if output.endswith("case_3"):
            raise Killed
        save(self, output, *args)

    monkeypatch.setattr(DefaultPreprocessor, "run_case_save", fail_at_one)


def kill_after_the_last_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def preprocess_and_die(*args: Any) -> None:
        preprocess_dataset(*args)
        raise Killed

    monkeypatch.setattr(preprocessing, "preprocess_dataset", preprocess_and_die)


def killed(*args: Any) -> None:
    raise Killed


KILLS = (
    kill_before_writing_plans,
    kill_before_the_first_case_goes,
    kill_after_the_first_case_went,
    kill_before_preprocessing,
    kill_as_nnunet_begins_to_delete,
    kill_while_nnunet_deletes,
    kill_while_cases_are_made,
    kill_after_the_last_case,
)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("marked", [True, False], ids=["ours", "unmarked"])
@pytest.mark.parametrize("again", ["plan", "run"])
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.__name__)
def test_after_a_kill_the_next_command_leaves_data_that_fit(
    kill: Callable[[pytest.MonkeyPatch], None], again: str, marked: bool, folder: Path
) -> None:
    name_channel(folder, "noNorm")
    if not marked:
        forget_marker(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill(monkeypatch)
        # a worker that is gone ends nnU-Net with a RuntimeError
        with pytest.raises((Killed, RuntimeError)):
            plan(["2d"])
    if again == "plan":
        plan(["2d"])
        assert not normalized(folder / "nnUNetPlans_2d")
    else:
        complete_data(DISKS, PLANS, "2d")
    assert fits(folder)


@pytest.mark.parametrize("marked", [True, False], ids=["ours", "unmarked"])
def test_data_that_fit_again_once_a_change_is_taken_back_are_used(
    marked: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_channel(folder, "noNorm")
    if not marked:
        forget_marker(folder)
    with monkeypatch.context() as patched:
        kill_before_the_first_case_goes(patched)
        with pytest.raises(Killed):
            plan(["2d"])
    name_channel(folder, "grey")
    assert plan(["2d"]).reused == ("2d",)
    assert fits(folder)


def test_data_of_plans_that_disagree_stay_unknown_when_new_plans_agree_with_some(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_marker(folder)
    shutil.copy(folder / f"{PLANS}.json", folder / "Other.json")
    change_plans(folder, "2d", "Other", normalization_schemes=["NoNormalization"])
    name_channel(folder, "noNorm")
    with monkeypatch.context() as patched:
        kill_before_the_first_case_goes(patched)
        with pytest.raises(Killed):
            plan(["2d"])
    assert plan(["2d"]).preprocessed == ("2d",)
    assert fits(folder)


def test_data_that_no_plans_account_for_are_not_vouched_for_by_plans_written_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_marker(folder)
    (folder / f"{PLANS}.json").unlink()
    with monkeypatch.context() as patched:
        kill_before_the_first_case_goes(patched)
        with pytest.raises(Killed):
            plan(["2d"])
    assert plan(["2d"]).preprocessed == ("2d",)


def test_a_run_redoes_data_that_its_plans_no_longer_describe(folder: Path) -> None:
    change_plans(folder, "2d", normalization_schemes=["NoNormalization"])
    complete_data(DISKS, PLANS, "2d")
    assert fits(folder)
    before = written(folder / "nnUNetPlans_2d")
    complete_data(DISKS, PLANS, "2d")
    assert written(folder / "nnUNetPlans_2d") == before


def test_a_run_without_raw_data_refuses_data_made_with_other_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    complete_data(DISKS, PLANS, "2d")
    change_plans(folder, "2d", normalization_schemes=["NoNormalization"])
    with pytest.raises(ValueError, match=f"nnUNetPlans_2d was not preprocessed with the settings of the plans {PLANS}"):
        complete_data(DISKS, PLANS, "2d")


def test_what_nnunet_preprocesses_after_us_is_not_vouched_for_by_us(folder: Path) -> None:
    plan_experiment_dataset(901)
    change_plans(folder, "2d", "nnUNetPlans", normalization_schemes=["NoNormalization"])
    # until they are really preprocessed, the data are those of our plans
    assert plan(["2d"]).reused == ("2d",)
    preprocess_dataset(901, "nnUNetPlans", ["2d"], [1])
    before = written(folder / "nnUNetPlans_2d")
    for command in (lambda: plan(["2d"]), lambda: complete_data(DISKS, PLANS, "2d")):
        with pytest.raises(ValueError, match="was preprocessed for the plans nnUNetPlans with other settings"):
            command()
    assert written(folder / "nnUNetPlans_2d") == before
    assert not fits(folder)
    # redone on purpose they are ours, and said to be
    assert plan(["2d"], clean=True).preprocessed == ("2d",)
    assert fits(folder)
    assert plan(["2d"]).reused == ("2d",)


def test_plans_that_were_refused_the_data_do_not_get_them_once_the_others_are_gone(folder: Path) -> None:
    forget_marker(folder)
    (folder / f"{PLANS}.json").rename(folder / "nnUNetPlans.json")
    name_channel(folder, "noNorm")
    with pytest.raises(ValueError, match="was preprocessed for the plans nnUNetPlans with other settings"):
        plan(["2d"])
    (folder / "nnUNetPlans.json").unlink()
    assert plan(["2d"]).preprocessed == ("2d",)
    assert fits(folder)


def test_no_marker_is_there_while_data_are_redone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_before_preprocessing(monkeypatch)
    with pytest.raises(Killed):
        plan(["2d"], clean=True)
    assert not (folder / "nnUNetPlans_2d" / "slicemamba" / "made_with.json").exists()


def test_nnunet_reads_marked_data_as_before(folder: Path) -> None:
    data = folder / "nnUNetPlans_2d"
    assert (data / "slicemamba" / "made_with.json").is_file()
    dataset = infer_dataset_class(str(data))
    assert sorted(dataset.get_identifiers(str(data))) == [f"case_{i}" for i in range(5)]


@pytest.mark.parametrize("command", ["plan", "plan -c", "plan -c child", "run", "run child"])
def test_a_configuration_of_the_users_with_data_of_its_own_is_preprocessed(command: str, folder: Path) -> None:
    change_plans(folder, "2d_child", inherits_from="2d_half", batch_size=3)
    change_plans(folder, "2d_half", inherits_from="2d", spacing=[2.0, 2.0], data_identifier="nnUNetPlans_2d_half")
    asked = "2d_child" if "child" in command else "2d_half"
    before = written(folder / "nnUNetPlans_2d")

    def work() -> tuple[str, ...]:
        if command.startswith("run"):
            complete_data(DISKS, PLANS, asked)
            return ()
        return plan(None if command == "plan" else [asked]).preprocessed

    assert work() in ((), ("2d_half",))
    assert size_of(folder / "nnUNetPlans_2d_half") == (16, 20)
    first = written(folder / "nnUNetPlans_2d_half")
    assert work() == ()
    assert written(folder / "nnUNetPlans_2d_half") == first
    # its own settings count, and not those of its parent, whose data nobody touches
    change_plans(folder, "2d_half", spacing=[4.0, 4.0])
    work()
    assert size_of(folder / "nnUNetPlans_2d_half") == (8, 10)
    assert written(folder / "nnUNetPlans_2d") == before


def test_a_chain_of_inheritance_ends_at_the_data_that_it_reads(folder: Path) -> None:
    change_plans(folder, "2d_b3", inherits_from="2d", batch_size=3)
    change_plans(folder, "2d_b3_small", inherits_from="2d_b3", patch_size=[16, 16])
    assert plan(["2d_b3_small"]).reused == ("2d",)
    (folder / "nnUNetPlans_2d" / "case_3.pkl").unlink()
    complete_data(DISKS, PLANS, "2d_b3_small")
    assert fits(folder)


def test_a_configuration_that_nnunet_cannot_read_does_not_disturb_the_others(folder: Path) -> None:
    change_plans(folder, "2d_lost", inherits_from="gone", batch_size=3)
    assert plan(["2d"]).reused == ("2d",)
