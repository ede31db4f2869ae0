"""Tests of the table of the five data sets, of long trainings, and of their figures, on made-up trainings."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import results
import suite_figures
import suite_results
from PIL import Image
from suite_results import NETWORKS, NNUNET, SETS, candidate_of
from trainings import Trainings, reference_of

GAINS = dict(zip(NETWORKS, (0.02, 0.01, -0.005, 0.0), strict=True))
OURS, WITHOUT, *_ = NETWORKS


def training(data: str, name: str, repeat: int, dice: np.ndarray, fold: int = 0, epochs: int = 20) -> tuple[Any, Any]:
    run = f"{data}-fold{fold}-{name}-{epochs}x250-{repeat}"
    row = {"id": run, "data": data, "fold": fold, "candidate": candidate_of(name, data), "repeat": repeat}
    row |= {"epochs": epochs, "iterations": 250, "state": "finished"}
    row |= {"dice": float(dice.mean()), "epoch_seconds": 10 + repeat}
    return row, [{"run": run, "case": f"c{i}", "label": "x", "dice": float(value)} for i, value in enumerate(dice)]


def kept(folder: Path, *made: tuple[Any, Any]) -> Trainings:
    results.write("runs", [row for row, _ in made], folder)
    results.write("cases", [case for _, cases in made for case in cases], folder)
    return Trainings(folder)


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite_results, "RESAMPLES", 1999)


def all_sets(folder: Path, left_out: tuple[str, str] = ("", "")) -> Trainings:
    """Two trainings of every network on every set but `left_out`: 30 cases whose gains scatter by 0.01."""
    rng, made = np.random.default_rng(0), []
    for data in SETS:
        base = rng.uniform(0.7, 0.9, 30)
        for name, gain in GAINS.items():
            for repeat in (1, 2) if (data, name) != left_out else ():
                apart = gain and gain + rng.normal(0, 0.01, 30)
                made.append(training(data, name, repeat, base + apart + 0.001 * repeat))
    return kept(folder, *made)


def cells(table: str, network: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {network} |"))
    return line.strip("| ").split(" | ")[1:]


def test_every_set_has_its_difference_with_interval_and_the_mean_a_narrower_one(tmp_path: Path) -> None:
    table = suite_results.short(all_sets(tmp_path))
    assert len(table.splitlines()) <= 10
    *stock, over, number = cells(table, "nnU-Net's default")
    assert all(cell.startswith("Dice ") for cell in stock)
    assert (over, number) == ("", "2")
    *each, mean, _, _ = cells(table, "recommended")

    def width(cell: str) -> float:
        low, high = (float(bound) for bound in cell.split("(")[1].rstrip(")").split(" to "))
        assert low < float(cell.split(" ")[0]) < high
        return high - low

    assert float(mean.split(" ")[0]) == pytest.approx(2.0, abs=0.3)
    assert width(mean) < min(width(cell) for cell in each)
    # repeats differ by 0.1 points and by chance
    assert all(cell.startswith("-0.") for cell in cells(table, "nnU-Net's network, our optimiser")[:6])
    assert all(0.05 < float(sd) < 0.4 for sd in cells(table, "SD between trainings")[:5])


def test_the_mean_of_the_sets_counts_each_set_alike_and_draws_cases_within_it(tmp_path: Path) -> None:
    made = []
    for i, data in enumerate(SETS):
        n = 10 * (i + 1)
        gains = 0.01 * i + 0.01 * (np.arange(n) % 2)
        made += [training(data, NNUNET, 1, np.full(n, 0.5)), training(data, OURS, 1, 0.5 + gains)]
    trainings = kept(tmp_path, *made)
    found = suite_results.mean_beside(trainings, OURS)
    assert found is not None
    assert found.points == pytest.approx(2.5)
    # standard errors of the means of n cases of 0 or 1 point are 0.5 / sqrt(n)
    error = math.sqrt(sum(0.25 / (10 * (i + 1)) for i in range(5))) / 5
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    # the sets' differences are 0.5 to 4.5 points: their mean's standard error is sqrt(2.5 / 5), Student's t is 2.776
    low, high = (float(bound) for bound in suite_results.over_sets(trainings, OURS).split(" to "))
    assert (low, high) == (pytest.approx(2.5 - 2.776 * math.sqrt(0.5), abs=0.01), pytest.approx(4.46, abs=0.01))


def test_what_is_not_trained_is_said(tmp_path: Path) -> None:
    nothing = Trainings(tmp_path / "nothing")
    assert cells(suite_results.short(nothing), "recommended") == ["not trained"] * 5 + ["-", "-", "0"]
    assert suite_results.long(nothing) == "Not run yet."
    assert all("not trained" in one.markdown() for one in suite_figures.figures(nothing).values())
    table = suite_results.short(all_sets(tmp_path, ("acdc-60", OURS)))
    assert cells(table, "recommended")[3:] != ["not trained"] * 2
    assert cells(table, "recommended")[3] == "not trained"
    assert cells(table, "recommended")[5:] == ["-", "-", "0 to 2"]
    table = suite_results.short(all_sets(tmp_path / "other", ("acdc-60", NNUNET)))
    assert cells(table, "recommended")[3].startswith("Dice ")


def test_folds_on_which_nothing_was_chosen_have_a_table_of_their_own(tmp_path: Path) -> None:
    base, made = np.linspace(0.7, 0.9, 20), []
    for data in SETS:
        for fold, gain in ((0, 0.02), (1, 0.005), (2, 0.015)):
            made += [training(data, NNUNET, 1, base, fold), training(data, OURS, 1, base + gain, fold)]
    trainings = kept(tmp_path, *made)
    assert cells(suite_results.confirmed(trainings), "recommended")[5].startswith("+1.00 ")
    assert cells(suite_results.short(trainings.on_folds(first=True)), "recommended")[5].startswith("+2.00 ")
    only_first = kept(tmp_path / "first", *(pair for pair in made if pair[0]["fold"] == 0))
    assert suite_results.confirmed(only_first) == "Not run yet."


def test_a_design_is_compared_with_the_same_without_scans(tmp_path: Path) -> None:
    made = []
    for data in SETS:
        base = np.linspace(0.7, 0.9, 20)
        for name, gain in ((NNUNET, 0.0), (OURS, 0.02), (WITHOUT, 0.03)):
            made.append(training(data, name, 1, base + gain))
    table = suite_results.designs(kept(tmp_path, *made))
    *added, over, ours, without, numbers = cells(table, "from stride 4 on, half as wide in 3D (recommended)")
    assert [cell.split(" ")[0] for cell in (*added, ours, without)] == ["-1.00"] * 6 + ["+2.00", "+3.00"]
    assert (over, numbers) == ("-1.00 to -1.00", "1; 1")
    # in 2D the same candidates
    *each, numbers = cells(table, "from stride 4 on")
    assert ([cell.split(" ")[0] for cell in each], numbers) == (["-1.00"] * 3 + ["-"] * 6, "0 to 1; 0 to 1")
    assert cells(table, "from stride 4 on, in the decoder too") == ["-"] * 9 + ["0; 0"]


def test_either_augmentation_is_shown_with_each_training_and_their_noise(tmp_path: Path) -> None:
    base, made = np.linspace(0.7, 0.9, 20), []
    for name, gain in ((NNUNET, 0.01), ("stock", 0.0)):
        made += [training("acdc-60", name, repeat, base + gain + 0.001 * repeat) for repeat in (1, 2)]
    table = suite_results.augmentations(kept(tmp_path, *made))
    assert cells(table, "ACDC")[:2] == ["81.10, 81.20", "80.10, 80.20"]
    assert cells(table, "ACDC")[2].split(" ")[0] == "+1.00"
    assert cells(table, "ACDC")[3] == "0.07"
    assert cells(table, "ClinicDB") == ["not trained", "not trained", "-", "-"]


def test_long_trainings_are_compared_on_the_folds_that_both_have(tmp_path: Path) -> None:
    base = np.linspace(0.8, 0.9, 20)
    made = [training("hippocampus-260", OURS, 1, base + 0.01 * f, f, 1000) for f in range(5)]
    made += [training("hippocampus-260", NNUNET, 1, base, f, 1000) for f in (0, 1)]
    table = suite_results.long(kept(tmp_path, *made))
    ours = next(line for line in table.splitlines() if "| recommended | 1000 | 85.00 (0), 86.00 (1)" in line)
    assert "| 87.00 ± 1.58 | +0.50 (" in ours
    assert ours.endswith("| 3.1 |")  # 1,000 epochs of 11 s


def test_figures_are_drawn_anew_exactly_when_their_data_change(tmp_path: Path) -> None:
    drawn = suite_figures.figures(all_sets(tmp_path))
    for figure in drawn.values():
        assert not figure.is_current(tmp_path)
        figure.write(tmp_path)
        assert figure.is_current(tmp_path)
        with Image.open(tmp_path / figure.file) as image:
            assert image.width > 1000
        assert figure.markdown() == f"![{figure.words}]({figure.file})"
    assert len(drawn["hours"].data) == 2 * len(SETS) * len(NETWORKS)
    other = suite_figures.figures(all_sets(tmp_path / "other", ("acdc-60", OURS)))
    for name, figure in other.items():
        shutil.copy(tmp_path / figure.file, tmp_path / "other")
        assert not figure.is_current(tmp_path / "other"), name
    gone = suite_figures.figures(Trainings(tmp_path / "nothing"))["hours"]
    assert not gone.is_current(tmp_path)
    gone.write(tmp_path)
    assert gone.is_current(tmp_path)


def test_nnunets_network_with_augmentation_on_the_gpu_is_a_reference_too(tmp_path: Path) -> None:
    trainings = all_sets(tmp_path)
    assert {reference_of(runs) for runs in trainings.groups().values()} == {NNUNET}
    assert all(f"| {candidate_of(OURS, data)} |" in pages.by_fold(trainings) for data in ("kvasir-998", "acdc-60"))
    assert candidate_of(OURS, "acdc-60") not in pages.others(trainings)


def test_a_reference_whose_trainings_are_all_lost_hides_no_table(tmp_path: Path) -> None:
    dice = np.array([0.8, 0.9])
    row, _ = training("acdc-60", "stock", 1, dice)
    others = [training("acdc-60", name, 1, dice + GAINS[name]) for name in (OURS, NNUNET)]
    trainings = kept(tmp_path, ({**row, "state": "lost"}, []), *others)
    assert f"| {candidate_of(OURS, 'acdc-60')} |" in pages.by_fold(trainings)
