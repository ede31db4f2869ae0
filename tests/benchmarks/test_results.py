"""Tests of the results' tables: rows are added and replaced by their keys, and the kept tables agree."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import results


def test_a_row_replaces_the_one_with_its_key_and_leaves_the_others(tmp_path: Path) -> None:
    results.write("runs", [{"id": "a", "dice": 0.81234567}, {"id": "b", "note": 'said: "x", y'}], tmp_path)
    results.write("runs", [{"id": "a", "dice": float("nan"), "fold": 2, "fitness": None}], tmp_path)
    b, a = results.read("runs", tmp_path)
    assert (a["id"], a["dice"], a["fold"], a["fitness"], a["note"]) == ("a", "", "2", "", "")
    assert (b["id"], b["note"]) == ("b", 'said: "x", y')
    results.write("runs", [{"id": "c", "dice": 0.81234567}], tmp_path)
    assert results.read("runs", tmp_path)[-1]["dice"] == "0.812346"
    # of a run all cases are replaced
    for names in ("xyz", "uv"):
        results.write("cases", [{"run": "a", "case": case, "label": "l", "dice": 1.0} for case in names], tmp_path)
    assert [row["case"] for row in results.read("cases", tmp_path)] == ["u", "v"]
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["cases.csv", "runs.csv"]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runs.csv has no columns \['speed'\]"):
        results.write("runs", [{"id": "a", "speed": 1}], tmp_path)
    assert results.read("runs", tmp_path) == []
    (tmp_path / "cases.csv").write_text("run,case,dice\na,b,1\n")
    with pytest.raises(ValueError, match="cases.csv has the columns"):
        results.read("cases", tmp_path)


def test_figures_that_are_measured_again_are_kept_with_a_number(tmp_path: Path) -> None:
    for value in (2.0, 3.0):
        figures = [("net", "B2", "step", value, "ms"), ("net", "B2", "host", None, "ms")]
        results.write_timings(tmp_path, "network_gpu", "H200", figures)
    results.write_timings(tmp_path, "network_gpu", "H100", [("net", "B2", "step", 4.0, "ms")])
    rows = results.read("timings", tmp_path)
    assert [(row["device"], row["value"], row["repeat"]) for row in rows] == [
        *(("H200", "2", "1"), ("H200", "3", "2"), ("H100", "4", "1"))
    ]


def test_the_tables_of_a_folder_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    results.write("runs", [{"id": "a", "dice": 0.5}, {"id": "b", "dice": 0.6}], ours)
    results.write("runs", [{"id": "b", "dice": 0.7}], theirs)
    results.write("epochs", [{"run": "b", "epoch": 1}], theirs)
    program = (
        Path(results.__file__).read_text().replace("RESULTS = Path(__file__)", f"RESULTS = Path({str(ours)!r})  #")
    )
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(theirs)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "runs.csv: 1 rows\nepochs.csv: 1 rows\n"
    assert {row["id"]: row["dice"] for row in results.read("runs", ours)} == {"a": "0.5", "b": "0.7"}
    assert len(results.read("epochs", ours)) == 1


def test_every_kept_run_agrees_with_its_cases_and_epochs() -> None:
    runs = {row["id"]: row for row in results.read("runs")}
    assert len(runs) == len(results.read("runs"))
    assert {row["state"] for row in runs.values()} <= {"finished", "unfinished", "failed", "lost"}
    by_label: dict[str, dict[str, list[float]]] = {}
    seen = Counter[tuple[str, str, str]]()
    for row in results.read("cases"):
        seen[row["run"], row["case"], row["label"]] += 1
        if row["dice"]:
            by_label.setdefault(row["run"], {}).setdefault(row["label"], []).append(float(row["dice"]))
    assert set(seen.values()) == {1}
    for run, labels in by_label.items():
        means = {label: sum(values) / len(values) for label, values in labels.items()}
        assert float(runs[run]["dice"]) == pytest.approx(sum(means.values()) / len(means), abs=2e-6), run
        told = dict(part.split("=") for part in runs[run]["dice_per_label"].split())
        assert {label: float(value) for label, value in told.items()} == pytest.approx(means, abs=2e-6)
        assert max(map(len, labels.values())) == int(runs[run]["cases"])
    epochs = Counter(row["run"] for row in results.read("epochs"))
    for run, number in epochs.items():
        assert number == int(runs[run]["epochs_done"])
    for run, row in runs.items():
        assert (
            run
            == f"{row['data']}-fold{row['fold']}-{row['candidate']}-{row['epochs']}x{row['iterations']}-{row['repeat']}"
        )
        assert bool(row["dice"]) <= (row["state"] == "finished")


def test_kept_timings_and_searches_are_numbers_with_a_date() -> None:
    timings, searches = results.read("timings"), results.read("searches")
    assert len(timings) > 200
    for row in timings:
        if row["figure"] == "training loss":  # nnU-Net's is below 0, and has no unit
            assert -1 <= float(row["value"]) <= 2
            continue
        assert float(row["value"]) > 0
        assert row["unit"] in {"ms", "s", "1/s", "GiB", "MiB", "MB", "M", "%"}
        assert row["date"] >= "2026"
    keys = [tuple(row[key] for key in results.KEYS["timings"]) for row in timings]
    assert len(set(keys)) == len(keys)
    for row in searches:
        assert 0 <= int(row["above_random"]) <= int(row["searches"])
