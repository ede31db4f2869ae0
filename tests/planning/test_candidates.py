"""Candidates in the plans are all that a supernet, its search and what is chosen from it need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.planning.architecture import planned_candidates
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.pretraining.weights_file import planned_network
from nnunetv2_slicemamba.search import SearchSettings, read_ledger, read_slicing_file
from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold
from nnunetv2_slicemamba.search.run import search_fold
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

PLANS, DEVICE = "nnUNetSliceMambaSPlans", torch.device("cpu")
WITH_EIGHT = ((2, 2), (2, 4), (4, 2), (4, 4), (8, 8))


@pytest.fixture
def selection(workspace: Path) -> Selection:
    """A fold under plans that name five candidates."""
    file = workspace / "nnUNet_preprocessed" / "Dataset901_Disks" / f"{PLANS}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["candidates"] = [
        list(thickness) for thickness in WITH_EIGHT
    ]
    file.write_text(json.dumps(plans))
    return select("901", "2d", "0", PLANS)


def test_plans_that_name_none_have_the_default_candidates() -> None:
    assert planned_candidates({"strides": [[4, 4]]}) == ((2, 2), (2, 4), (4, 2), (4, 4))
    assert len(planned_candidates({"strides": [[1, 4, 4]]})) == 8


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([[2, 2, 2]], r"thickness \(2, 2, 2\) of candidate 0 has 3 entries for 2 spatial axes"),
        ([[2, 2], [0, 2]], r"thickness \(0, 2\) of candidate 1 is out of range"),
        ([[2, 2], [2, 2]], "must be 1 to 256 different slicings"),
        ([], "must be 1 to 256 different slicings"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(named: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned_candidates({"strides": [[4, 4]], "candidates": named})


@pytest.mark.parametrize("trainer", ["SliceMambaSupernetTrainer", "SliceMambaSharedSupernetTrainer"])
def test_a_thickness_of_eight_in_the_plans_is_trained_searched_and_retrained(
    trainer: str, selection: Selection
) -> None:
    supernet = SupernetFolder(selection, trainer)
    with quiet():
        training = make_trainer(supernet, DEVICE)
        training.initialize()
    assert training.network.candidates == selection.candidates == WITH_EIGHT
    supernet.path.mkdir(parents=True, exist_ok=True)
    torch.save({"network_weights": training.network.state_dict()}, supernet.checkpoint)
    settings = SearchSettings(population=6, generations=0, parents=2, seed=1)
    search_fold(supernet, settings, DEVICE, console=Console(quiet=True))
    _, records = read_ledger(supernet.study)
    assert 4 in {index for record in records for index in record.architecture}
    found = read_slicing_file(supernet.slicing_file)
    assert found.candidates == WITH_EIGHT
    file, _ = set_slicing(supernet, "8x8")
    assert read_slicing_file(file).choice.architecture == (4,) * selection.n_blocks
    with quiet():
        final = make_trainer(FoldFolder(selection, "SliceMambaTrainer"), DEVICE)
        final.initialize()
    assert isinstance(final.network, SliceMambaUNet)
    final.network.set_slicing(found.slicing)


def test_weights_are_imported_into_the_planned_candidates(selection: Selection) -> None:
    network = planned_network(selection, supernet=True)
    assert isinstance(network, SliceMambaSupernet)
    assert network.candidates == WITH_EIGHT


def test_a_supernet_is_not_taken_for_one_of_as_many_other_candidates(selection: Selection) -> None:
    supernet = SupernetFolder(selection, "SliceMambaSupernetTrainer")
    supernet.path.mkdir(parents=True)
    with quiet():
        training = make_trainer(supernet, DEVICE)
        training.initialize()
        training.save_checkpoint(str(supernet.checkpoint))
    SupernetFold(supernet, DEVICE)
    file = selection.preprocessed_folder / f"{selection.plans_name}.json"
    file.write_text(file.read_text().replace(json.dumps(WITH_EIGHT[-1]).replace("(", "["), "[8, 2]"))
    other = SupernetFolder(select("901", "2d", "0", selection.plans_name), supernet.trainer)
    assert other.selection.candidates == (*WITH_EIGHT[:-1], (8, 2))
    words = "was trained with the candidates 2x2, 2x4, 4x2, 4x4, 8x8, the plans have 2x2, 2x4, 4x2, 4x4, 8x2 now;"
    with pytest.raises(ValueError, match=words):
        SupernetFold(other, DEVICE)
    with quiet(), pytest.raises(ValueError, match=words):
        make_trainer(other, DEVICE).load_checkpoint(str(supernet.checkpoint))


def test_a_supernet_of_a_version_that_kept_no_candidates_is_taken(selection: Selection) -> None:
    supernet = SupernetFolder(selection, "SliceMambaSupernetTrainer")
    supernet.path.mkdir(parents=True)
    with quiet():
        training = make_trainer(supernet, DEVICE)
        training.initialize()
        training.save_checkpoint(str(supernet.checkpoint))
        content = torch.load(supernet.checkpoint, weights_only=False)
        del content["init_args"]["slicing_candidates"]
        torch.save(content, supernet.checkpoint)
        make_trainer(supernet, DEVICE).load_checkpoint(str(supernet.checkpoint))
        SupernetFold(supernet, DEVICE)
