"""What the accuracy benchmark runs: every candidate exists, is expected something of, and changes what it says."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accuracy
import accuracy_prepare
import accuracy_trainers
from accuracy_list import CANDIDATES, NNUNET_TRAINER
from accuracy_results import SCHEMA_VERSION, RunFolder, read_results, write_result
from accuracy_runs import DATASETS, Candidate, find_run, read_candidates
from accuracy_schedule import FAILED, Job, Outcome

from nnunetv2_slicemamba.demo.layout import DATA
from nnunetv2_slicemamba.nets import SliceMambaUNet
from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.trainers import TRAINERS

BY_NAME = {candidate.name: candidate for candidate in CANDIDATES}
FOUR_STAGES = [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2], [2, 2]]
HIPPOCAMPUS = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


def planned_kwargs(candidate: Candidate, pooling: list[list[int]]) -> dict:
    return architecture_kwargs(pooling, "M", hybrid=str(candidate.planner).startswith("Hybrid"))


def plans_of(kwargs: dict) -> dict:
    architecture = {"network_class_name": "SliceMambaUNet", "arch_kwargs": kwargs}
    return {"plans_name": "nnUNetSliceMambaMPlans", "configurations": {"2d": {"architecture": architecture}}}


def changed_kwargs(candidate: Candidate, pooling: list[list[int]]) -> dict:
    plans = plans_of(planned_kwargs(candidate, pooling))
    changed = accuracy_prepare.changed_plans(plans, "2d", candidate.changes, "new")
    assert changed["plans_name"] == "new"
    return changed["configurations"]["2d"]["architecture"]["arch_kwargs"]


def test_every_candidate_has_a_prediction_and_a_trainer_that_exists() -> None:
    trainers = {*TRAINERS, *accuracy_trainers.CANDIDATES, NNUNET_TRAINER}
    for candidate in CANDIDATES:
        assert len(candidate.prediction) > 20
        assert candidate.trainer in trainers, candidate.name
        assert candidate.plans.command
    assert len(BY_NAME) == len(CANDIDATES)
    assert {c.trainer for c in CANDIDATES} >= set(accuracy_trainers.CANDIDATES)
    with pytest.raises(ValueError, match="'m-bold' has no prediction"):
        Candidate("m-bold", " ")
    with pytest.raises(ValueError, match="'fold1-m' begins as a run's of another fold"):
        Candidate("fold1-m", "its runs could not be told from those of m on fold 1")


def test_candidates_on_size_m_and_its_hybrid_change_one_thing() -> None:
    for candidate in CANDIDATES:
        if candidate.name.startswith("m-") and not candidate.is_supernet:
            base = BY_NAME["m-hybrid" if candidate.name.startswith("m-hybrid-") else "m"]
            if candidate.inherits:
                base = BY_NAME[base.name + "-searched"]
                assert candidate.supernet == base.supernet
            differing = [
                candidate.planner != base.planner,
                candidate.trainer != base.trainer,
                candidate.slicing != base.slicing,
                bool(candidate.changes),
            ]
            assert sum(differing) == 1, candidate.name


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        *((c.name, FOUR_STAGES) for c in CANDIDATES if c.changes),
        *((name, FOUR_STAGES[:4]) for name in ("m-high", "m-expand1")),
        *((f"m-hybrid-{name}", HIPPOCAMPUS) for name in ("dstate8", "dstate32", "expand1", "high")),
    ],
)
def test_a_changed_network_can_be_built_and_differs_in_what_was_changed(name: str, pooling: list[list[int]]) -> None:
    planned = planned_kwargs(BY_NAME[name], pooling)
    kwargs = changed_kwargs(BY_NAME[name], pooling)
    assert {key for key in kwargs if kwargs[key] != planned.get(key)} <= set(BY_NAME[name].changes)
    assert set(BY_NAME[name].changes) <= set(inspect.signature(SliceMambaUNet).parameters)
    network = SliceMambaUNet(1, 2, **{**kwargs, "features_per_stage": [8] * len(kwargs["strides"])})
    assert network.n_blocks == sum(kwargs["n_blocks_per_stage"]) + sum(kwargs["n_blocks_per_stage_decoder"])
    assert kwargs != planned
    assert ("stem_features" in kwargs) == ("hybrid" in name)


def test_blocks_of_four_stages_are_cut_to_fewer_as_the_planner_does() -> None:
    kwargs = changed_kwargs(BY_NAME["m-high"], FOUR_STAGES[:4])
    # without the deepest stages: the encoder's last and the decoder's first
    assert (kwargs["n_blocks_per_stage"], kwargs["n_blocks_per_stage_decoder"]) == ([3, 3], [3, 3])
    assert BY_NAME["m-high"].changes["n_blocks_per_stage_decoder"][:2] != [3, 3]


def test_a_change_that_changes_nothing_is_refused() -> None:
    # in two stages nothing is left of the third stage's blocks
    with pytest.raises(ValueError, match=r"changes nothing in a network of 2 stages"):
        changed_kwargs(BY_NAME["m-shallow"], FOUR_STAGES[:4])
    with pytest.raises(ValueError, match=r"changes nothing in a network of 2 stages"):
        changed_kwargs(BY_NAME["m-hybrid-shallow"], HIPPOCAMPUS)


def test_runs_have_plans_of_their_own_only_where_the_network_is_changed() -> None:
    assert find_run("isic2017-m", BY_NAME).plans_name == find_run("isic2017-m-sgd.2", BY_NAME).plans_name
    names = [find_run(f"isic2017-{c.name}", BY_NAME).plans_name for c in CANDIDATES if c.changes]
    assert len(set(names)) == len(names)
    # nnU-Net splits the names of its result folders at two underscores
    assert not any("__" in name for name in names)
    assert find_run("hippocampus-m", BY_NAME).slicing == "2x4x2"
    assert find_run("isic2017-stock", BY_NAME).slicing is None
    assert find_run("isic2017-m.3", BY_NAME).repeat == 3
    other = find_run("isic2017-fold3-m-sgd.2", BY_NAME)
    assert (other.name, other.fold, other.repeat, other.candidate.name) == ("isic2017-fold3-m-sgd.2", 3, 2, "m-sgd")
    assert find_run("isic2017-m", BY_NAME).fold == 0
    assert RunFolder(other, Path("here")).fold.name == "fold_3"
    assert find_run("isic2017-fold3-m-searched.2", BY_NAME).supernet(BY_NAME).name == "isic2017-fold3-m-supernet"
    for wrong in ("isic2017-mm", "brain-m", "isic2017", "isic2017-m.x", "isic2017-fold5-m", "isic2017-fold-m"):
        with pytest.raises(ValueError, match=f"there is no run '{wrong}'"):
            find_run(wrong, BY_NAME)


def test_what_a_supernet_chooses_for_is_of_the_same_network() -> None:
    for candidate in CANDIDATES:
        supernet = find_run(f"isic2017-{candidate.name}.2", BY_NAME).supernet(BY_NAME)
        assert (supernet is None) == (candidate.supernet is None)
        if supernet is not None:
            assert supernet.candidate.is_supernet
            assert supernet.plans_name == find_run(f"isic2017-{candidate.name}", BY_NAME).plans_name
            assert supernet.repeat == 1
    for name in ("m", "m-hybrid-supernet", "none"):
        wrong = Candidate("m-wrong", "cannot be", slicing=None, supernet=name)
        with pytest.raises(ValueError, match=f"m-wrong names the supernet '{name}'; give a candidate with"):
            find_run("isic2017-m-wrong", {"m-wrong": wrong}).supernet({**BY_NAME, "m-wrong": wrong})


def test_runs_get_the_cores_that_their_batches_need() -> None:
    skin, brain = find_run("isic2017-m", BY_NAME), find_run("hippocampus-m", BY_NAME)
    assert accuracy.shares([skin], 16, 2) == {skin.name: 8}
    assert accuracy.shares([skin], 16, 1) == {skin.name: 16}
    both = accuracy.shares([skin, brain], 16, 2)
    assert both[skin.name] == 2 * both[brain.name] + 1 == 11
    assert accuracy.shares([skin, brain], 2, 4) == {skin.name: 1, brain.name: 1}


def test_gpus_are_those_of_the_machine_or_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(gpus: int, parallel: int) -> list[str]:
        places = accuracy.gpu_places(gpus, parallel) or []
        return [value for place in places for value in place.values()]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert accuracy.gpu_places(1, 4) is None
    assert accuracy.gpu_places(2, 2) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    assert numbers(2, 5) == ["0", "1", "0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f2c, 5")
    assert numbers(3, 4) == ["3", "GPU-8f2c", "5", "3"]
    assert numbers(2, 2) == ["3", "GPU-8f2c"]
    with pytest.raises(ValueError, match="--gpus 4: CUDA_VISIBLE_DEVICES=3,GPU-8f2c, 5 has fewer"):
        accuracy.gpu_places(4, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="--gpus 2: CUDA_VISIBLE_DEVICES= has fewer"):
        accuracy.gpu_places(2, 2)


def test_trainings_are_spread_over_the_gpus_asked_for_and_their_results_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def run_jobs(jobs: list[Job], parallel: int, *rest: object, **more: object) -> None:
        _, _, ended, _, places = rest
        given.extend(places)
        ended(Outcome("isic2017-m", FAILED, "made up"))

    monkeypatch.setattr(accuracy, "run_jobs", run_jobs)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folders = ["--data", f"isic2017={tmp_path}", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    command = ["run", *folders, "--runs", "isic2017-m"]
    assert accuracy.main([*command, "--parallel", "3", "--gpus", "2"]) == 1
    assert [place["CUDA_VISIBLE_DEVICES"] for place in given] == ["0", "1", "0"]
    assert read_results([tmp_path / "out"])["isic2017-m"]["gpus"] == 2
    for wrong in (["--gpus", "0"], ["--gpus", "3"], ["--gpus", "-1"], ["--gpus", "2", "--device", "cpu"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            accuracy.main([*command, "--parallel", "2", *wrong])
        assert end.value.code == 2
        said = f"--gpus must be 1 to --parallel, 2, and 1 without --device cuda; it is {wrong[1]}"
        assert said in " ".join(capsys.readouterr().err.split())


def test_a_slicing_comes_from_the_supernet_at_hand_or_from_its_result(tmp_path: Path) -> None:
    supernet, searched, inherit = (
        find_run(f"isic2017-m-{name}", BY_NAME) for name in ("supernet", "searched", "inherit")
    )
    of = functools.partial(accuracy.supernets_for, candidates=BY_NAME, runs=tmp_path)
    missing = "isic2017-m-searched needs the search of isic2017-m-supernet: .*; isic2017-m-inherit needs the weights"
    with pytest.raises(ValueError, match=missing):
        of([searched, inherit], finished={})
    # trained in the same call: both wait for it
    waiting = of([searched, inherit, supernet], finished={})
    folder = RunFolder(supernet, tmp_path / supernet.name)
    here = {"SLICEMAMBA_SLICING": str(folder.slicing_file)}
    assert waiting == dict.fromkeys((searched.name, inherit.name), accuracy.Chosen(here, (supernet.name,)))
    # a result tells the slicing, not the weights
    known = {supernet.name: {"search": {"slicing": [[2, 4]], "complete": True}}}
    [(name, told)] = of([searched], finished=known).items()
    assert (name, told.after) == (searched.name, ())
    assert json.loads(Path(told.variables["SLICEMAMBA_SLICING"]).read_text()) == known[supernet.name]["search"]
    with pytest.raises(ValueError, match="isic2017-m-inherit needs the weights of isic2017-m-supernet"):
        of([inherit], finished=known)
    # its own folder is there, and complete
    folder.slicing_file.parent.mkdir(parents=True)
    for complete in (False, True):
        folder.slicing_file.write_text(json.dumps({"complete": complete}))
        if complete:
            assert of([searched, inherit], finished={}) == dict.fromkeys(waiting, accuracy.Chosen(here))
        else:
            with pytest.raises(ValueError, match=missing):
                of([searched, inherit], finished={})
    # what is continued has its slicing already
    begun = RunFolder(inherit, tmp_path / inherit.name).fold
    begun.mkdir(parents=True)
    (begun / "checkpoint_latest.pth").touch()
    folder.slicing_file.unlink()
    assert of([inherit], finished={}) == {}


def test_candidates_from_a_file_may_bring_a_planner_and_must_bring_a_prediction(tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    name, command = "nnUNetSliceMambaHybridMPlans", ["slicemamba", "plan", "--hybrid", "--size", "M"]
    entries = [
        {"name": "m-stem", "planner": "HybridM", "changes": {"stem_features": 32}, "prediction": "sharper"},
        {"name": "m-own", "planner": {"command": command, "plans_name": "Own"}, "prediction": "the same"},
    ]
    file.write_text(json.dumps(entries))
    stem, own = read_candidates(file)
    assert accuracy_prepare.planning_order(find_run("isic2017-m-stem", {"m-stem": stem})) == {
        "command": (*command, "-overwrite_plans_name", name),
        "from": name,
        "plans": f"{name}_m_stem",
        "changes": {"stem_features": 32},
    }
    assert own.plans.command == tuple(command)
    file.write_text(json.dumps([{"name": "m-mute"}]))
    with pytest.raises(ValueError, match="it needs name and prediction"):
        read_candidates(file)
    file.write_text(json.dumps([entries[0] | {"name": "m"}]))
    assert accuracy.main(["list", "--candidates", str(file)]) == 2


def test_the_hippocampus_is_laid_out_as_nnunet_wants_it(tmp_path: Path) -> None:
    source, target = tmp_path / "Task04", tmp_path / "raw"
    for kind, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
        (source / kind).mkdir(parents=True)
        for file in sorted((DATA / "hippocampus3d" / kind).iterdir())[:3]:
            # without nnU-Net's suffix, as the official archive has them
            (source / kind / file.name.replace(suffix + ".nii", ".nii")).write_bytes(file.read_bytes())
        (source / kind / "._hippocampus_001.nii.gz").touch()
    accuracy_prepare.lay_out_hippocampus(source, target)
    images = sorted(file.name for file in (target / "imagesTr").iterdir())
    assert images == [f"hippocampus_{n}_0000.nii.gz" for n in ("001", "034", "075")]
    assert sorted(file.name for file in (target / "labelsTr").iterdir()) == [n.replace("_0000", "") for n in images]
    assert json.loads((target / "dataset.json").read_text()) == {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (source / "labelsTr" / "hippocampus_034.nii.gz").unlink()
    with pytest.raises(ValueError, match="hippocampus_034"):
        accuracy_prepare.lay_out_hippocampus(source, target)


def test_a_finished_run_is_not_done_again_and_mistakes_are_told_before_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    finished = {"schema_version": SCHEMA_VERSION, "name": "isic2017-m", "state": "finished", "dice": {"mean": 0.87}}
    write_result(finished, out)
    options = ["--work", str(tmp_path / "work"), "--out", str(out)]
    data = ["--data", f"isic2017={tmp_path}"]
    assert accuracy.main(["run", *data, "--runs", "isic2017-m", *options]) == 0
    assert "isic2017-m: finished before, Dice 0.8700" in capsys.readouterr().out
    assert accuracy.main(["run", *data, "--runs", "isic2017-m-searched,hippocampus-m", *options]) == 2
    said = capsys.readouterr().out
    assert "--data lacks hippocampus=DIR" in said
    # a trial's slicing is nobody's
    trial = {"name": "isic2017-m-supernet", "search": {"slicing": [[2, 4]], "complete": True}, "trial": [1, 2]}
    write_result(finished | trial, out)
    assert accuracy.main(["run", *data, "--runs", "isic2017-m-searched", *options]) == 2
    assert "isic2017-m-searched needs the search of isic2017-m-supernet: name both in --runs" in capsys.readouterr().out
    assert accuracy.main(["run", "--data", "isic2017=/nowhere", "--runs", "isic2017-m", *options]) == 2
    assert " or ".join(f"{key}=FOLDER" for key in DATASETS) in capsys.readouterr().out
    assert not list((tmp_path / "work").rglob("*.log"))
