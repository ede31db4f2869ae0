"""Tests of the pages of results: they show what the tables hold, and the kept pages are what the command makes."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import Any

import pages
import pytest
import results
import suite_results

CASES = [0.70, 0.80, 0.90, 0.60]


def training(candidate: str, dice: list[float] | None, fold: int = 0, repeat: int = 1, **more: Any) -> tuple[Any, Any]:
    """A row of runs.csv with the mean of `dice`, and the rows of its cases, one label; None: unfinished."""
    run = f"skin-{fold}-{candidate}-{repeat}-{more.get('epochs', 20)}"
    row = {"id": run, "data": "skin", "fold": fold, "candidate": candidate, "repeat": repeat, "epochs": 20}
    row |= {"iterations": 250, "state": "finished" if dice else "unfinished", "planner": "slicemamba plan", **more}
    row["dice"] = sum(dice) / len(dice) if dice else None
    return row, [{"run": run, "case": f"c{i}", "label": "lesion", "dice": value} for i, value in enumerate(dice or [])]


def kept(folder: Path, *trainings: tuple[Any, Any]) -> pages.Trainings:
    results.write("runs", [row for row, _ in trainings], folder)
    results.write("cases", [case for _, cases in trainings for case in cases], folder)
    return pages.Trainings(folder)


def rows(table: str) -> list[list[str]]:
    """Cells of the tables' rows, their heads and rules left out."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rules = [i for i, line in enumerate(lines) if line.startswith("| ---")]
    return [line[2:-2].split(" | ") for i, line in enumerate(lines) if i not in rules and i + 1 not in rules]


def test_the_pages_are_what_the_command_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--check"]) == 0
    for page in pages.PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- table: ") == text.count("<!-- end -->")


def test_every_table_is_on_a_page() -> None:
    shown = {name for page in pages.PAGES for name in re.findall(r"<!-- table: (.+?) -->", page.read_text())}
    assert shown == set(pages.tables(pages.Trainings()))


def test_figures_of_the_text_are_those_of_the_tables() -> None:
    text = pages.PAGES[0].read_text(encoding="utf-8").partition("## Method")[0]
    text, whole = pages.MARKED.sub("", text), pages.PAGES[0].read_text(encoding="utf-8")
    tables = set(re.findall(r"\d+\.\d\d\b", "".join(found[0] for found in pages.MARKED.finditer(whole))))
    found = set(re.findall(r"\d+\.\d\d\b", text))
    assert len(found) > 30
    trainings = pages.Trainings().on_folds(first=True)
    ours, without, ours_alone, _ = suite_results.NETWORKS
    left_out = [
        one.points
        for data in suite_results.SETS
        if data != "clinicdb-609"
        and (one := suite_results.beside(trainings, suite_results.trained(trainings, data, 20), ours)) is not None
    ]
    gains = [suite_results.mean_beside(trainings, name) for name in (without, ours_alone)]
    blocks = gains[0].points - gains[1].points if gains[0] and gains[1] else 0.0
    assert found - tables <= {f"{statistics.fmean(left_out):.2f}", f"{blocks:.2f}"}
    # a difference stands with the interval that is its own, whatever the order of the two networks
    cells = re.sub(r"[-+|()\s]+", " ", "".join(one[0] for one in pages.MARKED.finditer(whole)))
    bracket = r"(\d+\.\d\d)(?:(?!\d\.\d\d)[^()]){0,90}\(-?(\d+\.\d\d) to -?(\d+\.\d\d)\)"
    intervals = re.findall(bracket, " ".join(text.split()))
    assert len(intervals) > 7
    for gain, low, high in intervals:
        assert f"{gain} {low} to {high}" in cells or f"{gain} {high} to {low}" in cells, (gain, low, high)


def test_losses_of_two_trainings_differ_by_what_the_text_says() -> None:
    runs = pages.Trainings().on_folds(first=True)
    of = {(row["run"], row["epoch"]): row["train_loss"] for row in results.read("epochs")}
    ours, spreads = next(iter(suite_results.NETWORKS)), []
    for data in suite_results.SETS:
        (alike,) = suite_results.trained(runs, data, 20, (ours,))[ours].values()
        losses = [float(of[row["id"], "5"]) for row in alike]
        spreads.append(max(losses) - min(losses))
    told = f"training losses differ by at most {math.ceil(1000 * max(spreads)) / 1000:.3f} on any set"
    assert told in " ".join(pages.PAGES[0].read_text(encoding="utf-8").split())


def test_gains_of_the_scans_in_first_and_second_trainings_are_what_the_text_says() -> None:
    runs, gains = pages.Trainings().on_folds(first=True), []
    pair = tuple(suite_results.NETWORKS)[:2]
    for repeat in ("1", "2"):
        each = []
        for data in suite_results.SETS:
            found = suite_results.trained(runs, data, 20, pair)
            one, other = (next(float(r["dice"]) for r in found[name][0] if r["repeat"] == repeat) for name in pair)
            each.append(100 * (one - other))
        gains.append(statistics.fmean(each))
    told = f"scans add {gains[0]:.2f} points in the mean of the sets, in the second ones {gains[1]:.2f}."
    assert told in " ".join(pages.PAGES[0].read_text(encoding="utf-8").split())


def test_the_3d_step_of_the_text_is_that_of_the_latest_run() -> None:
    latest = {
        (row["work"], row["figure"]): float(row["value"])
        for row in results.read("timings")
        if row["benchmark"] == "volumes_gpu" and row["size"].startswith("CT 3D") and row["device"] == "H200"
    }
    ours = latest["residual L, blocks from stride 4", "step as a graph"]
    theirs = latest["nnU-Net PlainConvUNet, torch.compile", "step"]
    told = f"takes {ours:.2f} ms, {ours / theirs:.2f} of the {theirs:.2f} ms that nnU-Net's compiled network takes"
    assert told in " ".join(pages.PAGES[1].read_text(encoding="utf-8").split())


def test_a_page_with_old_tables_is_written_anew_and_its_text_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Before\n\n<!-- table: worth -->\nold\n<!-- end -->\n\nafter <!-- end -->\n")
    monkeypatch.setattr(pages, "PAGES", (page,))
    nothing = kept(tmp_path)
    monkeypatch.setattr(pages, "Trainings", lambda: nothing)
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    assert pages.main(["--check"]) == 1
    assert "old" in page.read_text()
    assert pages.main([]) == 0
    text = page.read_text()
    assert text == f"# Before\n\n<!-- table: worth -->\n\n{pages.worth()}\n\n<!-- end -->\n\nafter <!-- end -->\n"
    assert pages.main(["--check"]) == 0
    page.write_text("<!-- table: nothing -->\n<!-- end -->\n")
    with pytest.raises(KeyError, match="nothing"):
        pages.main([])


def test_candidates_stand_beside_nnunets_default_of_their_fold(tmp_path: Path) -> None:
    better = [[value + gain for value, gain in zip(CASES, gains, strict=True)] for gains in ([0.02] * 3 + [0.04],) * 2]
    trainings = kept(
        tmp_path,
        training("stock", CASES),
        training("m", better[0], parameters=10_000_000),
        training("m", [value + 0.01 for value in better[1]], repeat=2, parameters=10_000_000),
        training("l", None),
        training("stock", [0.9] * 4, fold=1),
        training("m", [0.8] * 4, fold=1),
    )
    first, second = pages.by_fold(trainings).split("**skin, fold 1**")
    m, stock = rows(first)
    assert m[:4] == ["m", "77.50, 78.50", "78.00 ± 0.71", "+3.00"]
    low, high = (float(bound) for bound in m[4].split(" to "))
    # a case gains 2.5 to 4.5 points
    assert 2 <= low < 3 <= high <= 4.6
    assert m[5] == "10.0"
    assert stock == ["stock", "75.00", "75.00", "+0.00", "-", "-"]
    assert [row[3:5] for row in rows(second)] == [["+0.00", "-"], ["-10.00", "-"]]
    assert pages.unfinished(trainings).startswith(
        "1 trainings were stopped before their end. The results of 0 were lost"
    )


def test_an_interval_takes_the_trainings_whose_cases_are_known_and_says_how_many(tmp_path: Path) -> None:
    better = [0.72, 0.81, 0.93, 0.61]
    known = kept(tmp_path / "a", training("stock", CASES), training("m", better))
    without = [(row, []) for row, _ in (training("stock", [0.99], repeat=2), training("m", [0.5], repeat=2))]
    partly = kept(tmp_path / "b", training("stock", CASES), training("m", better), *without)
    (alone,) = (row for row in rows(pages.by_fold(known)) if row[0] == "m")
    (both,) = (row for row in rows(pages.by_fold(partly)) if row[0] == "m")
    assert both[4] == f"{alone[4]} (1 of 2)"
    assert both[2].startswith("63.38 ±")


def test_folds_count_alike_and_fold_0_can_be_left_out(tmp_path: Path) -> None:
    runs = []
    for fold, gain in {0: 0.05, 1: -0.01, 2: 0.03}.items():
        better = [value + gain + 0.001 * i for i, value in enumerate(CASES)]
        runs += [training("m", better, fold, repeat) for repeat in ((1, 2, 3) if fold == 0 else (1,))]
        runs.append(training("stock", CASES, fold))
    (row,) = rows(pages.over_folds(kept(tmp_path, *runs, training("l", CASES, 1))))
    assert row[:5] == ["skin", "m", "0, 1, 2", "5", "+2.48"]
    assert row[6] == "+5.15, -0.85, +3.15"
    difference, _, interval = row[7].partition(" ")
    assert difference == "+1.15"
    low, high = (float(bound) for bound in interval.strip("()").split(" to "))
    assert -1 <= low < 1.15 < high <= 3.3


def test_searched_slicings_stand_beside_their_controls(tmp_path: Path) -> None:
    arms = {"m-searched": 0.80, "m-2x2": 0.79, "m-random0": 0.83, "m-random1": 0.70, "m-4x4": 0.72}
    other = {"epochs": 10, "start_from": "supernet"}
    trainings = kept(
        tmp_path,
        *(training(name, [v, v], fitness=v / 2, slicing=name, **other) for name, v in arms.items()),
        training("m-searched", [0.6, 0.6], repeat=2, **other | {"start_from": "another"}),
        training("m-inherit", [0.75, 0.75], **other),
    )
    (row,) = rows(pages.searched(trainings))
    assert row[:4] == ["skin", "10 epochs of 250 iterations", "80.00, 60.00", "4"]
    assert row[4:] == ["76.00 ± 6.06", "83.00 (m-random0)", "1.00, p 0.02, 5 arms"]
    assert {row[3] for row in rows(pages.others(trainings))} == {"m-searched", "m-inherit"}


def test_the_latest_figures_count_and_of_several_their_median_and_range(tmp_path: Path) -> None:
    def figure(name: str, value: float, date: str, repeat: int = 1) -> dict[str, Any]:
        of = {"benchmark": "net", "work": "L", "size": "B2", "device": "H200", "unit": "ms", "commit": date[-1]}
        return {**of, "figure": name, "value": value, "date": date, "repeat": repeat}

    values = [figure("step", v, "2026-02", n) for n, v in enumerate((30.0, 10.0, 20.0), 1)]
    rest = [figure("step", 99.0, "2026-01"), figure("peak", 1234.5, "2026-01"), figure("other", 1.0, "2026-02")]
    results.write("timings", [rest[0], *values, *rest[1:]], tmp_path)
    table = pages.timings("net", ("step", "peak", "host"), tmp_path)
    assert table.splitlines()[0] == "| work | size | device | step (ms) | peak (ms) | measured |"
    assert rows(table) == [["L", "B2", "H200", "20 (10 to 30, 3 runs)", "1,234", "2026-01 and 2026-02"]]
