"""`slicemamba search` on a trained supernet: killed and continued, refused, and used by the final trainer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch

from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search import NoSearchError, read_ledger, read_slicing_file
from nnunetv2_slicemamba.search.fitness import mean_foreground_dice
from tests.end_to_end.workspace import BIN, FINAL, PLANS, SUPERNET, Workspace

pytestmark = pytest.mark.xdist_group("searched")

SEARCH = ("search", "-d", "511", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", SUPERNET, "-device", "cpu")
# 60 evaluations of some 15 ms: long enough to be killed in between
SMALL = ("--population", "6", "--generations", "9", "--parents", "2")


def folder_of(workspace: Workspace) -> Path:
    return workspace.results(SUPERNET) / "fold_0" / "slicing_search"


def kept(workspace: Workspace, study: str) -> list[tuple]:
    """What a search has finished."""
    try:
        _, records = read_ledger(folder_of(workspace) / "study.db", study)
    except NoSearchError:
        return []
    return [(r.generation, r.index, r.origin, r.architecture, r.fitness) for r in records]


def test_a_killed_search_continues_to_the_result_of_one_never_interrupted(supernet: Workspace) -> None:
    supernet.run("slicemamba", *SEARCH, *SMALL, "--study", "whole")
    file = folder_of(supernet) / "best_slicing.json"
    expected = read_slicing_file(file)

    elsewhere = f"sqlite:///{supernet.root / 'killed.db'}"
    killed = (*SEARCH, *SMALL, "--study", "killed", "--storage", elsewhere)
    process = subprocess.Popen(
        [str(BIN / "slicemamba"), *killed],
        env=supernet.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 240
    while process.poll() is None and len(kept(supernet, "killed")) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    assert process.poll() is None, "the search ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = kept(supernet, "killed")
    assert 3 <= len(left) < 60, "the kill came too late to prove anything"

    said = supernet.run("slicemamba", *killed)
    assert f"({60 - len(left)} evaluated now)" in said
    assert kept(supernet, "killed") == kept(supernet, "whole")
    assert [trial for trial in kept(supernet, "killed") if trial in left] == left
    continued = read_slicing_file(file)
    assert continued.choice.architecture == expected.choice.architecture
    assert continued.choice.fitness == expected.choice.fitness

    # what Optuna's dashboard shows, in the fold's folder or where it was asked for, soon after the command
    for storage, study in ((f"sqlite:///{folder_of(supernet) / 'study.db'}", "whole"), (elsewhere, "killed")):
        until, found = time.monotonic() + 120, []
        while len(found) < 60 and time.monotonic() < until:
            found = optuna.load_study(study_name=study, storage=storage).trials
            time.sleep(0.2)
        assert [trial.number for trial in found] == list(range(60))
        shown = {(*(trial.user_attrs[key] for key in ("generation", "index")), trial.value) for trial in found}
        assert shown == {(generation, index, fitness) for generation, index, _, _, fitness in kept(supernet, study)}


def test_another_seed_in_the_same_study_is_refused_before_work(supernet: Workspace) -> None:
    search = (*SEARCH, "--population", 2, "--generations", 0, "--study", "seeded")
    supernet.run("slicemamba", *search)
    before = kept(supernet, "seeded")
    assert len(before) == 2
    done = supernet.call("slicemamba", *search, "--seed", 7)
    assert done.returncode == 2
    assert "seed 0, this search has 7" in " ".join(done.stdout.split())
    assert kept(supernet, "seeded") == before


def test_the_fitness_is_nnunets_foreground_dice_of_the_path(
    supernet: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supernet's own validation in nnU-Net predicted its stored path, with mirroring; the search's fitness of that
    path, on the same preprocessed cases, must be the same metric of nearly the same prediction."""
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.search.evaluation.one_by_one import OneByOne
    from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold

    for key, value in supernet.environment().items():
        monkeypatch.setenv(key, value)
    fold = SupernetFold(SupernetFolder(select("511", "2d", "0", PLANS), SUPERNET), torch.device("cpu"))
    fold.load()
    stored = fold.network.get_architecture()
    first = fold(stored)
    other = tuple((index + 1) % 4 for index in stored)
    fold(other)
    assert fold(stored).fitness == first.fitness, "the fitness depends on what was evaluated before"
    nnunet = OneByOne.of_fold(fold)
    assert nnunet(stored).fitness == pytest.approx(first.fitness, abs=1e-4)
    nnunet.predictor.use_mirroring, nnunet.predictor.allowed_mirroring_axes = True, (0, 1)
    summary = json.loads((supernet.results(SUPERNET) / "fold_0" / "validation" / "summary.json").read_text())
    assert nnunet(stored).fitness == pytest.approx(summary["foreground_mean"]["Dice"], abs=1e-3)


def test_the_final_trainer_uses_what_the_search_chose(supernet: Workspace) -> None:
    supernet.run("slicemamba", *SEARCH, "--population", 2, "--generations", 0)
    folder = supernet.results(SUPERNET) / "fold_0" / "slicing_search"
    assert (folder / "figures" / "fitness.png").read_bytes()[:4] == b"\x89PNG"
    chosen = read_slicing_file(folder / "best_slicing.json")
    variables = {"SLICEMAMBA_SLICING": str(folder / "best_slicing.json")}
    supernet.run("nnUNetv2_train", 511, "2d", 0, "-tr", FINAL, "-p", PLANS, "-device", "cpu", changed=variables)
    checkpoint = supernet.results(FINAL) / "fold_0" / "checkpoint_final.pth"
    slicing = torch.load(checkpoint, weights_only=False)["network_weights"]["slicing"]
    assert tuple(map(tuple, slicing.tolist())) == chosen.slicing


@pytest.mark.slow
def test_the_benchmark_of_a_searchs_worth_evaluates_paths_as_the_search_does(copied: Workspace) -> None:
    copied.run("slicemamba", "holdout", *SEARCH[1:9], "-tr", SUPERNET, "--fraction", "0.25")
    copied.run("nnUNetv2_train", "511", "2d", "0", "-tr", SUPERNET, "-p", PLANS, "-device", "cpu")
    small = ("--population", "3", "--generations", "1")
    copied.run("slicemamba", *SEARCH, *small, "--parents", "2", "--mutants", "2")
    kept, result = copied.root / "kept.jsonl", copied.root / "worth.json"
    script = Path(__file__).parents[2] / "benchmarks" / "search_worth.py"
    files = ("--keep", str(kept), "--json", str(result))
    command = [sys.executable, str(script), *SEARCH[1:11], "--device", "cpu", *small, "--splits", "1", *files]
    done = subprocess.run(command, env=copied.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 searches, halves of 4 cases" in " ".join(done.stdout.split())
    found = json.loads(result.read_text())
    held_out = json.loads((copied.results(SUPERNET) / "fold_0" / "slicing_search" / "holdout.json").read_text())[
        "cases"
    ]
    assert found["cases"] == ["tiny_000", "tiny_001", *held_out]
    assert len(found["searches"]) == 2
    # a search's first generation depends on its seed alone
    _, records = read_ledger(folder_of(copied) / "study.db")
    fitness = {record.architecture: record.fitness for record in records if record.generation == 0}
    counts = {tuple(entry["path"]): entry["counts"] for entry in map(json.loads, kept.read_text().splitlines()[1:])}
    for path, wanted in fitness.items():
        assert mean_foreground_dice(counts[path][2:]).fitness == wanted
