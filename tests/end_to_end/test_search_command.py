"""`slicemamba search` on a trained supernet: killed and continued, refused, and used by the final trainer."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search import read_ledger, read_slicing_file
from nnunetv2_slicemamba.search.fitness import mean_foreground_dice
from nnunetv2_slicemamba.search.ledger.journal import JOURNAL_FOLDER
from tests.end_to_end.workspace import BIN, FINAL, PLANS, SUPERNET, Workspace

pytestmark = pytest.mark.xdist_group("searched")

SEARCH = ("search", "-d", "511", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", SUPERNET, "-device", "cpu")
# 60 evaluations of some 15 ms: long enough to be killed in between
SMALL = ("--population", "6", "--generations", "9", "--parents", "2")


def url(workspace: Workspace, name: str) -> str:
    return f"sqlite:///{workspace.root / name}"


def trials(workspace: Workspace, name: str) -> list[tuple]:
    _, records = read_ledger(url(workspace, name))
    return [(r.generation, r.index, r.origin, r.architecture, r.fitness) for r in records]


def finished(search: Path) -> list[tuple]:
    """What a search has finished, from the file where each evaluation is at once; a line may be half written."""
    found = []
    for file in (search / JOURNAL_FOLDER).glob("*.jsonl"):
        for line in file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                found.append((entry["generation"], entry["index"], tuple(entry["architecture"]), entry["fitness"]))
    return found


def test_a_killed_search_continues_to_the_result_of_one_never_interrupted(supernet: Workspace) -> None:
    whole, killed = url(supernet, "whole.db"), url(supernet, "killed.db")
    supernet.run("slicemamba", *SEARCH, *SMALL, "--storage", whole)
    file = supernet.results(SUPERNET) / "fold_0" / "slicing_search" / "best_slicing.json"
    expected = read_slicing_file(file)

    process = subprocess.Popen(
        [str(BIN / "slicemamba"), *SEARCH, *SMALL, "--storage", killed],
        env=supernet.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 240
    while process.poll() is None and len(finished(file.parent)) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    assert process.poll() is None, "the search ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = finished(file.parent)
    assert 3 <= len(left) < 60, "the kill came too late to prove anything"

    said = supernet.run("slicemamba", *SEARCH, *SMALL, "--storage", killed)
    assert f"({60 - len(left)} evaluated now)" in said
    assert trials(supernet, "killed.db") == trials(supernet, "whole.db")
    kept = [(generation, index, *rest) for generation, index, _, *rest in trials(supernet, "killed.db")]
    assert [trial for trial in kept if trial in left] == sorted(left)
    continued = read_slicing_file(file)
    assert continued.choice.architecture == expected.choice.architecture
    assert continued.choice.fitness == expected.choice.fitness


def test_another_seed_in_the_same_study_is_refused_before_work(supernet: Workspace) -> None:
    storage = url(supernet, "seeded.db")
    supernet.run("slicemamba", *SEARCH, "--population", 2, "--generations", 0, "--storage", storage)
    before = trials(supernet, "seeded.db")
    done = supernet.call(
        "slicemamba", *SEARCH, "--population", 2, "--generations", 0, "--storage", storage, "--seed", 7
    )
    assert done.returncode == 2
    assert "seed 0, this search has 7" in " ".join(done.stdout.split())
    assert trials(supernet, "seeded.db") == before


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
    copied.run("slicemamba", *SEARCH, *small, "--parents", "2", "--mutants", "2", "--storage", url(copied, "whole.db"))
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
    fitness = {record[3]: record[4] for record in trials(copied, "whole.db") if record[0] == 0}
    counts = {tuple(entry["path"]): entry["counts"] for entry in map(json.loads, kept.read_text().splitlines()[1:])}
    for path, wanted in fitness.items():
        assert mean_foreground_dice(counts[path][2:]).fitness == wanted
