"""The figures of a fold come from its ledger, with the other folds' searches beside it, and can be drawn anew."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.report.searches import read_search
from nnunetv2_slicemamba.search import (
    Fingerprint,
    LedgerError,
    SearchSettings,
    SlicingChoice,
    SlicingFile,
    open_ledger,
    slicing_search_folder,
    write_slicing_file,
)
from nnunetv2_slicemamba.search.choosing.set_slicing import fold_histories
from nnunetv2_slicemamba.search.figures import fold as figure_fold
from nnunetv2_slicemamba.search.figures.fold import redraw
from nnunetv2_slicemamba.search.ledger.evaluation_log import log_folder, logs_in
from nnunetv2_slicemamba.search.ledger.study import only_copier
from tests.search.structured_search import CANDIDATES, N_BLOCKS, STAGES, records_of, slicing_of

TRAINER, PLANS, DATASET = "SliceMambaSupernetTrainer", "nnUNetSliceMambaSPlans", "Dataset999_Test"


def selection_of(fold):
    kwargs = {
        "strides": [[4, 4], [2, 2], [2, 2]],
        "features_per_stage": [8, 16, 32],
        "n_blocks_per_stage": [stage.encoder_blocks for stage in STAGES],
        "n_blocks_per_stage_decoder": [stage.decoder_blocks for stage in reversed(STAGES)],
    }
    network = {"network_class_name": "SliceMambaUNet", "arch_kwargs": kwargs, "_kw_requires_import": []}
    plans = {"plans_name": PLANS, "dataset_name": DATASET, "configurations": {"2d": {"architecture": network}}}
    return Selection(DATASET, plans, PLANS, "2d", fold)


def search(fold, n, how_chosen="search"):
    """A ledger with the first n evaluations, and best_slicing.json."""
    folder = slicing_search_folder(selection_of(fold).fold_folder(TRAINER))
    settings = SearchSettings(population=24, generations=6, parents=5, seed=3)
    fingerprint = Fingerprint(DATASET, TRAINER, PLANS, "2d", fold, "a" * 64, "b" * 64, N_BLOCKS, CANDIDATES, settings)
    records = records_of(fold)[:n]
    with open_ledger(folder / "study.db", fingerprint) as ledger:
        for record in records:
            ledger.add(record)
    best = max(records, key=lambda record: record.fitness)
    choice = SlicingChoice(slicing_of(best.architecture), how_chosen, best.architecture, best.fitness)
    write_slicing_file(
        SlicingFile(choice, CANDIDATES, None, DATASET, "2d", PLANS, fold, None, None), folder / "best_slicing.json"
    )
    return folder


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The data that are drawn; nnUNet_results lies in tmp_path."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    kept = []
    write = figure_fold.write_figures
    monkeypatch.setattr(figure_fold, "write_figures", lambda data, folder: kept.append(data) or write(data, folder))
    return kept


def test_all_searched_folds_take_part_and_nothing_else(drawn):
    search(0, 30)
    search(2, 24)
    folder = search(10, 24)
    search(3, 24, how_chosen="fixed")
    broken = slicing_search_folder(selection_of(4).fold_folder(TRAINER))
    broken.mkdir(parents=True)
    (broken / "best_slicing.json").write_text("{")
    page = redraw(SupernetFolder(selection_of(10), TRAINER), None, None)
    assert page == folder / "search.html"
    (data,) = drawn
    assert list(data.folds) == ["0", "2", "10"]
    assert [len(choice.history) for choice in data.folds.values()] == [30, 24, 24]
    assert data.slicing == data.folds["10"].slicing
    assert "agreement.png" in {file.name for file in (folder / "figures").iterdir()}


def test_a_search_that_goes_on_is_drawn_as_far_as_it_is(drawn):
    folder = search(0, 5)
    (folder / "best_slicing.json").unlink()
    redraw(SupernetFolder(selection_of(0), TRAINER), None, None)
    assert len(drawn[0].records) == 5


def test_without_a_search_the_error_names_the_command(drawn):
    with pytest.raises(LedgerError, match="slicemamba search"):
        redraw(SupernetFolder(selection_of(0), TRAINER), None, None)
    assert drawn == []


def test_a_fold_searched_within_a_limit_is_drawn_and_heard_within_it(drawn):
    folder = slicing_search_folder(selection_of(0).fold_folder(TRAINER))
    settings = SearchSettings(population=24, generations=6, parents=5, seed=3, max_latency_ms=5.0)
    fingerprint = Fingerprint(DATASET, TRAINER, PLANS, "2d", 0, "a" * 64, "b" * 64, N_BLOCKS, CANDIDATES, settings)
    records = [replace(r, cost=float(r.index)) for r in records_of(0)[:15]]
    with open_ledger(folder / "study.db", fingerprint) as ledger:
        for record in records:
            ledger.add(record)
    redraw(SupernetFolder(selection_of(0), TRAINER), None, None)
    allowed = [r for r in records if r.index <= 5]
    assert drawn[0].best.fitness == max(r.fitness for r in allowed) < max(r.fitness for r in records)
    assert (folder / "figures" / "pareto.png").is_file()
    heard = fold_histories(SupernetFolder(selection_of(0), TRAINER))[0]
    assert [a for a, fitness in heard if not math.isnan(fitness)] == [r.architecture for r in allowed]


def test_a_search_is_drawn_with_the_fitness_that_it_had(drawn):
    folder = slicing_search_folder(selection_of(0).fold_folder(TRAINER))
    settings = SearchSettings(population=24, generations=6, parents=5, seed=3)
    about = (DATASET, TRAINER, PLANS, "2d", 0, "a" * 64, "b" * 64, N_BLOCKS, CANDIDATES, settings)
    with open_ledger(folder / "study.db", Fingerprint(*about, "mean IoU: TP/(TP+FP+FN) per case")) as ledger:
        for record in records_of(0)[:15]:
            ledger.add(record)
    page = redraw(SupernetFolder(selection_of(0), TRAINER), None, None).read_text()
    assert "Best fitness (mean IoU)" in page
    found = read_search(folder.parent)
    assert found is not None
    assert found.fitness_title == "mean IoU"


def test_figures_are_drawn_while_a_search_still_copies_its_study(drawn, monkeypatch):
    monkeypatch.setattr(figure_fold, "STUDY_SECONDS", 0.1)
    folder = search(0, 24)
    (log,) = logs_in(log_folder(folder / "study.db")).values()
    shown = io.StringIO()
    with only_copier(log):
        page = redraw(SupernetFolder(selection_of(0), TRAINER), None, None, Console(file=shown, width=300))
    assert page.is_file()
    assert "another process copies the search" in shown.getvalue()
    assert len(drawn) == 1
