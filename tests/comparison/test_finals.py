"""The best slicings of a search are trained for a tenth, and the best of them becomes the fold's slicing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.comparison.finals import finals_folder, hold_finals, show_finals
from nnunetv2_slicemamba.comparison.results import read_cases
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, search_needed, steps_of_fold, summary_dice
from nnunetv2_slicemamba.pipeline.slicings import check_slicings
from nnunetv2_slicemamba.pipeline.slurm.job import kept
from nnunetv2_slicemamba.pipeline.step import Command, Finished
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import SlicingFile, read_slicing_file, write_slicing_file
from nnunetv2_slicemamba.search.holdout import hold_out
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import best_records
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.search.run import FoldSearch
from nnunetv2_slicemamba.slicing.choice import FINALISTS
from nnunetv2_slicemamba.slicing.find import SLICING_VARIABLE
from nnunetv2_slicemamba.slicing.holdout_file import Holdout, holdout_path, read_holdout, write_holdout
from nnunetv2_slicemamba.trainers.settings import SETTINGS, tenth_of
from tests.cli.supernets import save_untrained_supernet
from tests.comparison.comparison_workspace import (
    CANDIDATES,
    DATASET,
    MISSED,
    PLANS,
    SEARCHED,
    SUPERNET,
    calls,
    random_slicing,
)

FINAL, TENTH = "SliceMambaTrainer_50epochs", "SliceMambaTrainer_5epochs"
# by falling fitness; trained, SEARCHED misses least
RANKED = (((2, 2),) * 4, SEARCHED, random_slicing(0), ((4, 4),) * 4)


def architecture(slicing: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    return tuple(map(CANDIDATES.index, slicing))


def records(costs: tuple[float | None, ...] = (None,) * 4) -> tuple[Record, ...]:
    return tuple(
        Record(architecture(slicing), 0.9 - 0.1 * i, i, 0, "mutant", 1.0, {}, costs[i])
        for i, slicing in enumerate(RANKED)
    )


@pytest.fixture
def supernet(root: Path) -> SupernetFolder:
    return SupernetFolder(select(DATASET, "2d", "0", PLANS).with_blocks(), SUPERNET)


def final(supernet: SupernetFolder) -> SlicingFile:
    found = FoldSearch(0.9, 4, 0, supernet.slicing_file, Path(), True, None, "", records())  # type: ignore[arg-type]
    return hold_finals(supernet, found, 3, FINAL, "cpu", Console(quiet=True))


def test_the_best_of_the_finalists_is_the_folds_slicing_also_after_finals_that_were_stopped(
    supernet: SupernetFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = supernet.slicing_file.read_text()
    holdout = Holdout(DATASET, PLANS, "2d", 0, 0.2, 3, ("case_1",), "a" * 64)
    write_holdout(holdout, supernet.holdout_file)
    monkeypatch.setenv("STAND_IN_ENDS", "checkpoint")
    with pytest.raises(CommandError):
        final(supernet)
    assert supernet.slicing_file.read_text() == before
    monkeypatch.delenv("STAND_IN_ENDS")
    chosen = final(supernet)
    assert sorted(call.partition("/")[2] for call in calls(root)) == [*["repeat_0"] * 3, "repeat_0 --c"]
    assert chosen == read_slicing_file(supernet.slicing_file)
    assert (chosen.slicing, chosen.choice.how_chosen, chosen.complete) == (SEARCHED, "search", True)
    assert chosen.choice.fitness == pytest.approx(0.8)
    assert (chosen.choice.details["generation"], chosen.choice.details["origin"]) == (1, "mutant")
    told = chosen.choice.details[FINALISTS]
    assert (told["asked"], told["trainer"]) == (3, TENTH)
    assert [tuple(one["architecture"]) for one in told["trained"]] == [architecture(one) for one in RANKED[:3]]
    dice = [one["dice"] for one in told["trained"]]
    assert sorted(dice, reverse=True) == [dice[1], dice[2], dice[0]]
    # each leaves out what the supernet left out
    folder = finals_folder(supernet, chosen, FINAL)
    for arm in folder.arms():
        assert read_holdout(holdout_path(folder.fold_folder(arm.name, 0))) == holdout
    # nothing is trained twice, nor is the place of a final training used
    assert final(supernet).slicing == SEARCHED
    assert len(calls(root)) == 4
    assert not (root / "nnUNet_results" / DATASET / f"{TENTH}__{PLANS}__2d").exists()
    console = Console(width=120, record=True)
    show_finals(chosen, console)
    first = console.export_text().splitlines()[4]
    assert first.startswith("\N{BOX DRAWINGS LIGHT VERTICAL} * 1 of 2x2, 1 of 4x4")
    assert f"{dice[1]:.4f}" in first


def test_a_run_asks_for_finals_until_they_were_held(supernet: SupernetFolder) -> None:
    supernet.checkpoint.touch()

    def needed(finalists: int | None, trainer: str = FINAL) -> Command | Finished:
        return search_needed(supernet, RunSettings(trainer, SUPERNET, "cpu", finalists=finalists))

    content = replace(
        read_slicing_file(supernet.slicing_file), supernet_checkpoint_sha256=sha256_of_file(supernet.checkpoint)
    )
    write_slicing_file(content, supernet.slicing_file)
    assert isinstance(needed(None), Finished)
    found = needed(3)
    assert isinstance(found, Command)
    assert found.arguments[-4:] == ("--finalists", "3", "--final-trainer", FINAL)
    held = replace(content, choice=replace(content.choice, details={FINALISTS: {"asked": 3, "trainer": TENTH}}))
    write_slicing_file(held, supernet.slicing_file)
    assert isinstance(needed(3), Finished)
    assert isinstance(needed(None), Finished)
    assert isinstance(needed(4), Command)
    # finals of another length are others
    assert isinstance(needed(3, "SliceMambaTrainer_250epochs"), Command)


def test_the_trainings_of_finals_are_progress_of_a_searchs_job(supernet: SupernetFolder) -> None:
    settings = RunSettings(FINAL, SUPERNET, "cpu", finalists=3)
    search, alone = (steps_of_fold(supernet.selection, one)[1] for one in (settings, replace(settings, finalists=None)))
    before = kept(search)
    folder = finals_folder(supernet, read_slicing_file(supernet.slicing_file), FINAL).fold_folder("slicing_1", 0)
    folder.mkdir(parents=True)
    (folder / "checkpoint_latest.pth").touch()
    assert len(kept(search)) == len(before) + 1
    assert kept(alone) == before


def test_a_fold_that_is_trained_without_finals_is_not_given_another_slicing(supernet: SupernetFolder) -> None:
    folder = FoldFolder(supernet.selection, FINAL)
    folder.path.mkdir(parents=True)
    (folder.path / "checkpoint_latest.pth").touch()
    settings = RunSettings(FINAL, SUPERNET, "cpu", finalists=3)
    with pytest.raises(InputError, match="fold 0 is trained without these finals, in .*: leave --finalists out"):
        check_slicings([supernet.selection], settings)
    check_slicings([supernet.selection], replace(settings, finalists=None))


@pytest.mark.parametrize(
    ("cost", "costs", "expected"),
    [
        (None, (None,) * 4, [0, 1, 2]),
        (Cost("step", False, 8.0), (9.0, 8.0, 7.0, 6.0), [1, 2, 3]),
        (Cost("step", True), (9.0, 9.5, 7.0, 8.0), [0, 2]),
    ],
)
def test_finalists_are_the_best_within_the_limit_or_on_the_front(
    cost: Cost | None, costs: tuple[float | None, ...], expected: list[int]
) -> None:
    own = records(costs)
    assert best_records(own, cost, 3) == [own[i] for i in expected]


@pytest.mark.parametrize(
    ("trainer", "tenth"),
    [
        ("SliceMambaTrainer", "SliceMambaTrainer_100epochs"),
        ("SliceMambaInheritTrainer_500epochs", "SliceMambaTrainer_50epochs"),
        ("SliceMambaTrainer_250epochs", "SliceMambaTrainer_20epochs"),
        ("SliceMambaTrainerNoDeepSupervision", "SliceMambaTrainer_100epochs"),
        ("SliceMambaTrainer_20epochs", "SliceMambaTrainer_5epochs"),
        ("SliceMambaTrainer_demo3d", "SliceMambaTrainer_demo3d"),
    ],
)
def test_a_tenth_of_a_training_is_a_trainer_that_there_is(trainer: str, tenth: str) -> None:
    assert tenth_of(trainer) == tenth
    assert tenth.removeprefix("SliceMambaTrainer") in SETTINGS


def test_the_slicings_of_this_test_have_trainings() -> None:
    assert all(slicing in MISSED for slicing in RANKED)


@pytest.mark.slow
def test_the_search_command_trains_finalists_and_validates_them_on_the_holdout(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunetv2_slicemamba.cli.main import main

    monkeypatch.delenv(SLICING_VARIABLE, raising=False)
    selection = select("901", "2d", "0", PLANS)
    supernet = SupernetFolder(selection, f"{SUPERNET}_1epoch")
    held_out, _, _ = hold_out(supernet, 0.5)
    save_untrained_supernet(selection, supernet.trainer)
    place = ("-d", "901", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", supernet.trainer, "-device", "cpu")
    with pytest.raises(SystemExit) as ended:
        main(["search", *place, "--population", "4", "--generations", "0", "--parents", "2", "--finalists", "2"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "Finals on 2 holdout cases, trained by SliceMambaTrainer_1epoch" in said
    chosen = read_slicing_file(supernet.slicing_file)
    assert chosen.complete
    told = chosen.choice.details[FINALISTS]["trained"]
    assert len(told) == 2
    folder = finals_folder(supernet, chosen, "SliceMambaTrainer_1epoch")
    for one in told:
        summary = folder.fold_folder(one["arm"], 0) / "validation" / "summary.json"
        cases, _, _ = read_cases(summary)
        assert [case.partition(".")[0] for case in cases] == list(held_out.cases)
        assert summary_dice(summary) == pytest.approx(one["dice"])
