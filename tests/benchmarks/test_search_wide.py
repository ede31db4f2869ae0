"""Tests of the benchmark of wide candidates: what is trained, in which order, and what its tables say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import accuracy_training
import numpy as np
import pytest
import results
import search_wide
import search_wide_table
from accuracy_runs import Data
from search_wide_job import limit_of, spread_over_front

from nnunetv2_slicemamba.search.evaluation.step_costs import StepCosts
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.slicing.file import read_slicing_file

SKIN = Data("skin", Path(), "2d", 20)
ARMS = ("searched", "fixed", "random-at-budget-0", "random-at-budget-1", "no-scan", "cheapest", "dice-alone")
OF = {"data": "skin", "supernet": "skin-wide-supernet", "limit_ms": 7.2, "fixed_ms": 10, "least_ms": 6, "cases": 80}


def record(number: int, fitness: float, cost: float) -> Record:
    return Record((number,), fitness, 0, number, "random", 0.1, cost=cost)


def arms(folder: Path, front: int = 0) -> list[results.Row]:
    rows: list[dict[str, Any]] = [{"part": "budget", "arm": name, "slicing": "2x4 no-scan"} for name in ARMS]
    for i in range(front):
        words = f"{i + 1}x1 no-block"
        rows.append({"part": "front", "arm": f"front-{i:02d}", "slicing": words, "fitness": 0.8 + 0.01 * i})
    results.write("arms", [{"step_ms": 8 + 0.1 * i, **row, **OF} for i, row in enumerate(rows)], folder)
    return results.read("arms", folder)


def trained(folder: Path, dice: dict[str, list[float]], supernet: str = "skin-wide-supernet") -> None:
    """Trainings of arms; every case has the training's Dice and an offset of its own, some with noise."""
    base, rng = np.linspace(-0.1, 0.1, 40), np.random.default_rng(0)
    for arm, each in dice.items():
        for repeat, value in enumerate(each, 1):
            run = f"skin-fold0-wide-{arm}-20x250-{repeat}"
            cases = value + base + rng.normal(0, 0.002, 40)
            row = {"id": run, "data": "skin", "fold": 0, "candidate": f"wide-{arm}", "repeat": repeat, "epochs": 20}
            row |= {"iterations": 250, "state": "finished", "dice": cases.mean(), "start_from": supernet}
            results.write("runs", [row], folder)
            rows = [{"run": run, "case": f"c{i}", "label": "x", "dice": float(one)} for i, one in enumerate(cases)]
            results.write("cases", rows, folder)


def test_slicings_are_spread_over_the_front_and_filled_up_from_the_fronts_behind() -> None:
    front = [record(i, 0.8 + 0.01 * i, 5 + i) for i in range(5)]
    behind = [record(10 + i, 0.79 + 0.01 * i, 5.1 + i) for i in range(5)]
    hopeless = [record(20 + i, 0.1, 20 + i) for i in range(30)]
    undefined = record(60, math.nan, 1)
    everything = [*hopeless, *behind, undefined, *front]
    assert spread_over_front(everything, 5) == front
    chosen = spread_over_front(everything, 3)
    assert chosen == front[::2]
    more = spread_over_front(everything, 8)
    assert len({one.architecture for one in more}) == 8
    assert {one.architecture for one in more} <= {one.architecture for one in (*front, *behind)}
    assert [one.cost for one in more] == sorted(one.cost for one in more if one.cost is not None)
    assert spread_over_front(behind, 20) == behind


def test_the_budget_is_the_share_of_the_step_or_of_what_can_be_saved() -> None:
    small_rest = StepCosts(((2, 4), "no-block"), 2.0, ((8.0, 0.0),), 10.0, 0.0)
    assert limit_of(small_rest, 10.0, 0.6) == pytest.approx(6)
    large_rest = StepCosts(((2, 4), "no-block"), 8.0, ((2.0, 0.0),), 10.0, 0.0)
    assert limit_of(large_rest, 10.0, 0.6) == pytest.approx(9.2)
    # a whole network that was timed faster than one without blocks
    noisy = StepCosts(((2, 4), "no-block"), 15.7391, ((0.2, 0.0),), 14.7, 0.1)
    assert noisy.cheapest <= limit_of(noisy, 15.9391, 0.6) == pytest.approx(15.8591, abs=1e-3)


def test_what_the_row_needs_is_trained_twice_and_second_trainings_come_last(tmp_path: Path) -> None:
    rows = arms(tmp_path, front=3)
    runs = search_wide.trainings(SKIN, rows, ("budget", "front"), 20, 250)
    names = [run.candidate.name.removeprefix("wide-") for run in runs]
    assert names == [*ARMS, *search_wide.TWICE, "front-00", "front-01", "front-02"]
    assert [run.repeat for run in runs] == [1] * 7 + [2] * 3 + [1] * 3
    assert len({run.id for run in runs}) == len(runs)
    row = runs[-1].row()
    assert (row["slicing"], row["fitness"], row["start_from"]) == ("3x1 no-block", 0.82, "skin-wide-supernet")
    assert row["plans_changes"] == '{"batch_size": 20}'
    assert runs[0].row()["fitness"] is None  # no search has evaluated it
    assert [run.candidate.name for run in search_wide.in_turns([runs[:2], runs[2:3]])] == [
        *("wide-searched", "wide-random-at-budget-0", "wide-fixed")
    ]
    assert [run.id for run in search_wide.trainings(SKIN, rows, ("front",), 20, 250)] == [run.id for run in runs[-3:]]


def test_a_search_that_is_kept_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out"
    monkeypatch.setattr(results, "RESULTS", kept)
    arms(kept)
    assert [row["arm"] for row in search_wide.arms_of(out)["skin"]] == list(ARMS)
    arms(out, front=2)
    assert len(search_wide.arms_of(out)["skin"]) == len(ARMS) + 2


def test_a_slicing_of_several_candidates_is_set_from_a_file(tmp_path: Path) -> None:
    order = {"slicing": "2x4 no-scan 8x8 no-block", "configuration": "2d", "dataset": "Dataset701_skin", "fold": 0}
    order |= {"plans": "nnUNetSliceMambaWidePlans", "notes": str(tmp_path / "notes.json")}
    file = accuracy_training.slicing_to_set(order)
    assert read_slicing_file(file).slicing == ((2, 4), "no-scan", (8, 8), "no-block")
    assert accuracy_training.slicing_to_set(order | {"slicing": "2x4"}) == "2x4"
    order |= {"slicing": "1x1x1 2x4x2", "configuration": "3d_fullres"}
    assert read_slicing_file(accuracy_training.slicing_to_set(order)).slicing == ((1, 1, 1), (2, 4, 2))


def line(table: str, *cells: str) -> list[str]:
    found = [row.strip("| ").split(" | ") for row in table.splitlines() if all(f"| {one} |" in row for one in cells)]
    (only,) = found
    return only


def test_the_tables_show_order_differences_and_equivalence(tmp_path: Path) -> None:
    arms(tmp_path, front=8)
    level = {"searched": [0.801, 0.799], "fixed": [0.8, 0.8], "no-scan": [0.78, 0.78], "cheapest": [0.77]}
    drawn = {"random-at-budget-0": [0.75], "random-at-budget-1": [0.77], "dice-alone": [0.79]}
    trained(tmp_path, {**level, **drawn, **{f"front-{i:02d}": [0.7 + 0.01 * i] for i in range(7)}})
    ranked = line(search_wide_table.ranking(tmp_path), "skin")
    assert ranked[1] == "7 of 8"
    assert ranked[2].startswith("+1.00 (+0.")
    table = search_wide_table.budget(tmp_path)
    fixed, drawn_cells, alone = (
        line(table, "skin", words)
        for words in ("searched less fixed", "searched less random", "searched for Dice alone less the best fixed")
    )
    assert fixed[1:3] == ["72%", "60%"]
    assert abs(float(fixed[4].split()[0])) < 0.1
    assert fixed[4].endswith("within 0.5: shown")
    assert float(drawn_cells[4].split()[0]) == pytest.approx(4, abs=0.1)
    assert (drawn_cells[6], alone[6]) == ("2, 2", "1, 2")
    assert float(alone[4].split()[0]) == pytest.approx(-1, abs=0.1)
    low, high = (float(bound) for bound in alone[4].split("(")[1].rstrip(")").split(" to "))
    assert low < -1 + 0.2 < high + 0.3
    shown = line(search_wide_table.arms(tmp_path), "skin", "searched")
    assert (shown[2], shown[3], shown[4]) == ("2x4 no-scan", "80%", "-")


def test_trainings_of_another_supernet_and_what_is_missing_are_not_taken_for_results(tmp_path: Path) -> None:
    arms(tmp_path, front=4)
    trained(tmp_path, {"searched": [0.8], "fixed": [0.8], "front-00": [0.8]}, supernet="another")
    assert line(search_wide_table.ranking(tmp_path), "skin")[1] == "0 of 4"
    assert "not trained" in line(search_wide_table.budget(tmp_path), "skin", "searched less fixed")
    for data, expected in json.loads(search_wide_table.EXPECTED.read_text())["expected"].items():
        assert line(search_wide_table.ranking(tmp_path), data)[1:4] == ["not searched", "-", f"{expected['tau']:+.2f}"]
