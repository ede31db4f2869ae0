"""With wide candidates, everything from planning to the report works, in 2D and 3D."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.common.checkpoints import load_network
from nnunetv2_slicemamba.exporting.export import export
from nnunetv2_slicemamba.exporting.fold_network import load_fold_network
from nnunetv2_slicemamba.exporting.formats import FORMATS
from nnunetv2_slicemamba.pipeline.fold_steps import hold_out_by_default
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.report import ReportSettings
from nnunetv2_slicemamba.report.gather import gather
from nnunetv2_slicemamba.report.page import build_page
from nnunetv2_slicemamba.report.render import render
from nnunetv2_slicemamba.search import (
    Evaluation,
    SearchSettings,
    SlicingFileError,
    open_ledger,
    read_ledger,
    read_slicing_file,
    run_search,
)
from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
from nnunetv2_slicemamba.search.run import search_fold
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, NO_SCAN, wide_candidates
from nnunetv2_slicemamba.trainers import TRAINERS
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet
from tests.cli.supernets import save_untrained_supernet
from tests.search.killable_search import fingerprint

PLANS, SUPERNET, FINAL = "WidePlans", "SliceMambaSupernetTrainer", "SliceMambaTrainer"
CPU, QUIET = torch.device("cpu"), Console(quiet=True)
SETTINGS = SearchSettings(population=8, generations=1, parents=3, seed=4)


def planned(dataset: str, configuration: str) -> Selection:
    number, name = int(dataset[7:10]), dataset
    plan_and_preprocess(number, name, "S", [configuration], plans_name=PLANS, processes=1, candidates="wide")
    return select(dataset, configuration, "0", PLANS)


def searched(selection: Selection) -> SupernetFolder:
    save_untrained_supernet(selection, SUPERNET)
    folder = SupernetFolder(selection, SUPERNET)
    search_fold(folder, SETTINGS, CPU, console=QUIET)
    return folder


def final_network(selection: Selection) -> torch.nn.Module:
    """Trains one step with the fold's slicing file, saves, and loads the checkpoint into a new network."""
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    arguments = (selection.plans | {"continue_training": False}, selection.configuration, selection.fold, description)
    trainer = TRAINERS[FINAL](*arguments, CPU)
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 1, 1
    with quiet():
        trainer.run_training()
        loaded = make_trainer(FoldFolder(selection, FINAL), CPU)
        loaded.initialize()
    load_network(loaded.network, FoldFolder(selection, FINAL).checkpoint, "")
    return loaded.network


def test_wide_candidates_from_plans_to_report_in_2d(workspace: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    selection = planned("Dataset901_Disks", "2d")
    assert selection.candidates == wide_candidates(2)
    supernet = SupernetFolder(selection, SUPERNET)
    hold_out_by_default([supernet], QUIET)
    assert supernet.holdout_file.is_file()
    folders = [searched(selection), searched(select("901", "2d", "1", PLANS))]
    found = [read_slicing_file(folder.slicing_file) for folder in folders]
    assert found[0].candidates == wide_candidates(2)
    assert (found[0].measured_on.kind, found[1].measured_on.kind) == ("holdout", "validation")
    texts = folders[0].slicing_file.read_text()
    assert '"candidates": [[2, 2], [2, 4], [4, 2], [4, 4], [1, 1], [8, 8], "no-scan", "no-block"]' in texts
    _, records = read_ledger(folders[0].study)
    assert {len(record.architecture) - record.architecture.count(7) for record in records} - {7, 6}, "only long paths"
    assert "no block" in (folders[0].search / "search.html").read_text()
    network = final_network(selection)
    assert network.get_slicing() == found[0].slicing
    agreed = read_slicing_file(set_slicing(folders[0], "consensus")[0])
    assert agreed.choice.how_chosen == "consensus"
    assert set(agreed.slicing) <= set(wide_candidates(2))
    # what is exported leaves out what the network does
    final = FoldFolder(selection, FINAL)
    source = load_fold_network(final, final.checkpoint, 1)
    source.network.set_slicing([NO_SCAN, NO_BLOCK, (1, 1), (8, 8), NO_BLOCK, NO_SCAN, (2, 4)])
    assert export(source, FORMATS["torchscript"], tmp_path / "net.ts").holds
    page = render(build_page(gather(ReportSettings("901"))), datetime(2026, 1, 1))
    assert "no block" in page or "no scan" in page
    assert "slicemamba plan -d 901 -c 2d --size S --network paper --gpu-memory 8 --candidates wide -p WidePlans" in page


def test_wide_candidates_are_trained_and_searched_in_3d(workspace: Path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    selection = planned("Dataset902_Slabs", "3d_fullres")
    folder = searched(selection)
    assert read_slicing_file(folder.slicing_file).candidates == wide_candidates(3)
    named = read_slicing_file(set_slicing(folder, NO_SCAN)[0])
    assert named.slicing == (NO_SCAN,) * selection.n_blocks
    with quiet():
        final = make_trainer(FoldFolder(selection, FINAL), CPU)
        final.initialize()
    final.network.set_slicing(named.slicing)


def test_a_slicing_that_was_searched_among_others_is_not_trained(workspace: Path) -> None:
    selection = planned("Dataset901_Disks", "2d")
    set_slicing(SupernetFolder(selection, SUPERNET), "random:1")
    file = selection.preprocessed_folder / f"{PLANS}.json"
    file.write_text(file.read_text().replace('"no-scan"', '"no-block-"').replace('"no-block"', '"no-scan"'))
    plans = json.loads(file.read_text().replace('"no-block-"', '"no-block"'))
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    trainer = TRAINERS[FINAL](plans | {"continue_training": False}, "2d", 0, description, CPU)
    both = "1x1, 8x8, no-scan, no-block, the plans have 2x2, 2x4, 4x2, 4x4, 1x1, 8x8, no-block, no-scan; restore"
    with quiet(), pytest.raises(SlicingFileError, match=both):
        trainer.on_train_start()


def test_a_stopped_search_among_wide_candidates_ends_as_one_that_was_not(tmp_path: Path) -> None:
    settings = SearchSettings(population=6, generations=3, parents=3, seed=7)
    wide = fingerprint(settings, candidates=wide_candidates(2))
    calls = 0

    def evaluate(architecture: tuple[int, ...]) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return Evaluation(sum(architecture) / 64)

    def search(file: Path) -> list[tuple[int, ...]]:
        with open_ledger(file, wide) as ledger:
            return [record.architecture for record in run_search(evaluate, settings, ledger, progress=False).records]

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "study.db")
    continued = search(tmp_path / "study.db")
    assert continued == search(tmp_path / "whole.db")
    assert len(continued) == len(set(continued)) == settings.evaluations
