"""A supernet does not train on held-out cases, the final trainer does, and nobody chooses on cases trained with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.search import HoldoutError, read_holdout
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold
from nnunetv2_slicemamba.search.holdout import hold_out, recorded_holdout, remove_holdout
from nnunetv2_slicemamba.slicing.holdout_file import holdout_path, write_holdout
from nnunetv2_slicemamba.trainers import TRAINERS

SUPERNET, FINAL = "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"


@pytest.fixture
def selection(workspace: Path) -> Selection:
    return select("901", "2d", "0", "nnUNetSliceMambaSPlans")


def supernet_of(selection: Selection) -> SupernetFolder:
    return SupernetFolder(selection, SUPERNET)


def trainer_of(selection: Selection, name: str = SUPERNET) -> Any:
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    plans = {**selection.plans, "continue_training": False}
    return TRAINERS[name](plans, "2d", selection.fold, description, torch.device("cpu"))


def test_the_supernet_leaves_the_held_out_cases_out_and_validates_on_them(selection: Selection) -> None:
    training, validation = trainer_of(selection).do_split()
    held_out, file, kept = hold_out(supernet_of(selection), 0.5)
    assert file == selection.fold_folder(SUPERNET) / "slicing_search" / "holdout.json"
    ours = trainer_of(selection).do_split()
    assert sorted([*ours[0], *ours[1]]) == sorted(training)
    assert ours == (kept, list(held_out.cases))
    assert len(ours[1]) == 2
    assert trainer_of(selection, FINAL).do_split() == (training, validation)
    assert trainer_of(selection, "SliceMambaSupernetTrainer_5epochs").do_split() == (training, validation)
    # what nnU-Net trains and validates with
    datasets = trainer_of(selection).get_tr_and_val_datasets()
    assert [sorted(dataset.identifiers) for dataset in datasets] == [sorted(kept), sorted(held_out.cases)]

    # a finalist of the search has the same file in its own folder
    own = holdout_path(selection.fold_folder(FINAL))
    write_holdout(held_out, own)
    assert trainer_of(selection, FINAL).do_split() == ours
    own.unlink()
    assert remove_holdout(supernet_of(selection)) == file
    assert remove_holdout(supernet_of(selection)) is None
    assert trainer_of(selection).do_split() == (training, validation)


def test_fold_all_has_a_holdout_too(workspace: Path) -> None:
    selection = select("901", "2d", "all", "nnUNetSliceMambaSPlans")
    held_out, _, kept = hold_out(supernet_of(selection), 0.2)
    ours = trainer_of(selection).do_split()
    assert sorted([*ours[0], *ours[1]]) == [f"case_{i}" for i in range(5)]
    assert ours == (kept, list(held_out.cases))


def test_a_changed_split_is_refused_by_the_trainer(selection: Selection) -> None:
    hold_out(supernet_of(selection), 0.5)
    file = selection.preprocessed_folder / "splits_final.json"
    splits = json.loads(file.read_text())
    file.write_text(json.dumps([{"train": splits[0]["train"][1:], "val": splits[0]["val"]}, *splits[1:]]))
    with pytest.raises(HoldoutError, match="made for another split than fold 0 has now"):
        trainer_of(selection).do_split()


def test_a_fraction_that_leaves_no_case_writes_nothing(selection: Selection) -> None:
    with pytest.raises(HoldoutError, match=r"0.1 of 4 training cases holds out 0 of them; .* give 0.25 or more"):
        hold_out(supernet_of(selection), 0.1)
    assert not holdout_path(selection.fold_folder(SUPERNET)).exists()


def test_a_checkpoint_records_its_holdout_and_goes_with_no_other(
    selection: Selection, make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    folder = selection.fold_folder(SUPERNET)
    with_all, checkpoint = tmp_path / "without.pth", folder / "checkpoint_latest.pth"
    make_trainer(SUPERNET).save_checkpoint(str(with_all))
    held_out, file, _ = hold_out(supernet_of(selection), 0.5)
    make_trainer(SUPERNET).save_checkpoint(str(checkpoint))
    assert recorded_holdout(with_all) is None
    assert recorded_holdout(checkpoint) == held_out
    make_trainer(SUPERNET, initialize=False).load_checkpoint(str(checkpoint))

    with pytest.raises(HoldoutError, match="was trained without a holdout, on all training cases"):
        make_trainer(SUPERNET, initialize=False).load_checkpoint(str(with_all))
    for change in (
        lambda: hold_out(supernet_of(selection), 0.5, 1),
        lambda: remove_holdout(supernet_of(selection)),
    ):
        with pytest.raises(HoldoutError, match="was trained with a holdout of 2 cases .fraction 0.5, seed 0."):
            change()
    assert read_holdout(file) == held_out, "a refused call changed the holdout"

    file.unlink()
    with pytest.raises(
        HoldoutError, match="now there is none. Restore it with 'slicemamba holdout -d Dataset901_Disks"
    ):
        make_trainer(SUPERNET, initialize=False).load_checkpoint(str(checkpoint))
    # as the message says
    assert hold_out(supernet_of(selection), 0.5, 0)[0] == held_out
    make_trainer(SUPERNET, initialize=False).load_checkpoint(str(checkpoint))


def test_a_holdout_that_appears_during_a_training_does_not_change_it(
    selection: Selection, make_trainer: Callable[..., Any]
) -> None:
    trainer = make_trainer(SUPERNET)
    before = trainer.do_split()
    hold_out(supernet_of(selection), 0.5)
    assert trainer.do_split() == before
    trainer.save_checkpoint(str(selection.fold_folder(SUPERNET) / "checkpoint_final.pth"))
    with pytest.raises(HoldoutError, match="trained without a holdout"):
        SupernetFold(supernet_of(selection), torch.device("cpu"))


def test_a_supernet_trained_without_a_holdout_cannot_get_one_later(
    selection: Selection, make_trainer: Callable[..., Any]
) -> None:
    folder = selection.fold_folder(SUPERNET)
    make_trainer(SUPERNET).save_checkpoint(str(folder / "checkpoint_best.pth"))
    with pytest.raises(HoldoutError, match=r"trained without a holdout.*move .*fold_0 away to train the supernet anew"):
        hold_out(supernet_of(selection), 0.5)
    assert not holdout_path(folder).exists()


def test_the_search_measures_on_the_held_out_cases(selection: Selection, make_trainer: Callable[..., Any]) -> None:
    held_out, _, _ = hold_out(supernet_of(selection), 0.5)
    make_trainer(SUPERNET).save_checkpoint(str(selection.fold_folder(SUPERNET) / "checkpoint_final.pth"))
    fold = SupernetFold(supernet_of(selection), torch.device("cpu"))
    assert fold.case_names == list(held_out.cases)
    assert (fold.measured_on.kind, fold.measured_on.number, fold.measured_on.sha256) == (
        "holdout",
        2,
        held_out.sha256,
    )
    assert fold.measured_on.for_fingerprint() == {"holdout_cases": 2, "holdout_cases_sha256": held_out.sha256}


def test_without_a_holdout_the_fingerprint_is_what_it_was(
    selection: Selection, make_trainer: Callable[..., Any]
) -> None:
    make_trainer(SUPERNET).save_checkpoint(str(selection.fold_folder(SUPERNET) / "checkpoint_final.pth"))
    fold = SupernetFold(supernet_of(selection), torch.device("cpu"))
    assert set(fold.measured_on.for_fingerprint()) == {"validation_cases", "validation_cases_sha256"}
    assert fold.measured_on.kind == "validation"
    assert fold.case_names == trainer_of(selection).do_split()[1]
