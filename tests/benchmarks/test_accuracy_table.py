"""The accuracy benchmark's table: right for results that are made up, and never showing what is no result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accuracy
from accuracy_results import KEPT, SCHEMA_VERSION, dice_of, is_finished, read_results, write_result
from accuracy_table import (
    BEGIN,
    END,
    HEADINGS,
    PAGE,
    candidates_of,
    folds_of,
    markdown,
    over_folds,
    rich_table,
    rows_of,
)


def result(candidate: str, dice: float | None, dataset: str = "isic2017", **changed: Any) -> dict[str, Any]:
    """A finished run with a Dice, an unfinished one without."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": f"{dataset}-{candidate}",
        "dataset": dataset,
        "candidate": candidate,
        "fold": 0,
        "prediction": f"what was expected of {candidate}",
        "state": "unfinished" if dice is None else "finished",
        "dice": None if dice is None else {"mean": dice, "sd": 0.0512, "per_class": {"lesion": {"mean": dice}}},
        "epochs": 20,
        "epochs_done": 7 if dice is None else 20,
        "epoch_seconds": 7.123,
        "peak_memory_mib": {"reserved": 3072.0, "allocated": 2000.0},
        "parameters": 9_842_600,
        "patch_size": [256, 256],
        "batch_size": 20,
        "gpu": "NVIDIA H100 80GB HBM3",
        "beside": [],
        "failure": None,
        "trial": None,
        "earlier": [],
    } | changed


def by_name(*results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {r["name"]: r for r in results}


def cells(results: dict[str, dict[str, Any]], dataset: str = "isic2017") -> dict[str, dict[str, str]]:
    rows = rows_of(results, dataset)
    return {row.cells[0]: dict(zip(HEADINGS, row.cells, strict=True)) for row in rows}


def test_runs_stand_by_falling_dice_with_their_distance_to_nnunet() -> None:
    shown = cells(by_name(result("m", 0.87), result("stock", 0.89), result("m-ema", 0.88)))
    assert list(shown) == ["isic2017-stock", "isic2017-m-ema", "isic2017-m"]
    assert [row["to nnU-Net"] for row in shown.values()] == ["+0.0000", "-0.0100", "-0.0200"]
    assert list(shown["isic2017-m"].values()) == [
        *("isic2017-m", "0.8700 ± 0.051", "-0.0200", "lesion 0.8700", "7.1", "3.0", "9.8", "20 x 256x256", "H100", "")
    ]


def test_the_reference_is_the_mean_of_repeated_runs_and_by_hand_only_where_there_is_none() -> None:
    by_hand = result("stock", 0.80, by_hand="by hand") | {"name": "isic2017-stock-by-hand"}
    second = result("stock", 0.91) | {"name": "isic2017-stock.2"}
    alone = cells(by_name(by_hand, result("m", 0.87)))
    assert alone["isic2017-m"]["to nnU-Net"] == "+0.0700"
    assert alone["isic2017-stock-by-hand"]["note"] == "by hand"
    both = cells(by_name(by_hand, result("stock", 0.89), second, result("m", 0.87)))
    assert both["isic2017-m"]["to nnU-Net"] == "-0.0300"


def trained(candidate: str, repeat: int, lesion: list[float]) -> dict[str, Any]:
    mean = sum(lesion) / len(lesion)
    made = result(candidate, mean) | {"name": f"isic2017-{candidate}.{repeat}"}
    made["dice"]["by_case"] = {f"case_{n}": {"lesion": value} for n, value in enumerate(lesion)}
    return made


def test_trainings_of_a_candidate_are_taken_together_and_held_against_nnunet_case_by_case() -> None:
    stock = [0.70, 0.80, 0.90, 0.95, 0.60, 0.85]
    better = [value + gain for value, gain in zip(stock, (0.01, 0.02, 0.01, 0.03, 0.02, 0.01), strict=True)]
    results = by_name(
        trained("stock", 1, stock),
        trained("m-ema", 1, better),
        trained("m-ema", 2, [value + 0.02 for value in better]),
        result("m", 0.70),
        result("l", 0.99, by_hand="by hand"),
        result("s", 0.99, trial=[1, 2]),
        result("m-sgd", None),
        result("m-clip1", 0.99, dataset="hippocampus"),
    )
    ema, reference, m, sgd = candidates_of(results, "isic2017")
    assert ema[:4] == ("m-ema", "2", "0.8267 ± 0.0141", "+0.0267")
    low, high = (float(bound) for bound in ema[4].split(" to "))
    # a case gains 0.02 to 0.04, whatever its Dice is
    assert 0.02 <= low < 0.0267 < high <= 0.04
    assert reference[:5] == ("stock", "1", "0.8000", "+0.0000", "-")
    # no cases are known of it
    assert m == ("m", "1", "0.7000", "-0.1000", "-", "what was expected of m")
    assert sgd == ("m-sgd", "0", "unfinished", "-", "-", "what was expected of m-sgd")


def test_the_interval_is_of_the_trainings_that_tell_their_cases_and_says_how_many() -> None:
    stock, better = [0.70, 0.80, 0.90, 0.95], [0.72, 0.81, 0.93, 0.96]
    older = result("stock", 0.99) | {"name": "isic2017-stock.9"}
    alone = candidates_of(by_name(trained("stock", 1, stock), trained("m-ema", 1, better)), "isic2017")[0]
    results = by_name(trained("stock", 1, stock), older, trained("m-ema", 1, better), result("m-ema", 0.50))
    reference, ema = candidates_of(results, "isic2017")
    assert (reference[0], ema[:2]) == ("stock", ("m-ema", "2"))
    # neither the other training's Dice nor the reference's moves it
    assert ema[4] == f"{alone[4]} (1 of 2)"


def test_every_fold_has_tables_and_a_reference_of_its_own() -> None:
    other = [result("stock", 0.90, fold=1), result("m", 0.92, fold=1)]
    other = [r | {"name": f"isic2017-fold1-{r['candidate']}"} for r in other]
    results = by_name(result("stock", 0.80), result("m", 0.70), *other, result("m", 0.6, "hippocampus", fold=2))
    assert folds_of(results) == [("isic2017", 0), ("isic2017", 1), ("hippocampus", 2)]
    assert cells(results)["isic2017-m"]["to nnU-Net"] == "-0.1000"
    (m, stock) = candidates_of(results, "isic2017", 1)
    assert (m[:4], stock[:2]) == (("m", "1", "0.9200", "+0.0200"), ("stock", "1"))
    text = markdown(results)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        *("### isic2017, over folds", "### isic2017, fold 0", "### isic2017, fold 1", "### hippocampus, fold 2")
    ]
    assert text.index("| isic2017-m |") < text.index(", fold 1") < text.index("| isic2017-fold1-m |")


def test_folds_count_alike_whatever_was_repeated_on_one_of_them() -> None:
    stock, gains = [0.70, 0.80, 0.90, 0.60], {0: 0.03, 1: -0.01, 2: 0.05}
    runs = []
    for fold, gain in gains.items():
        better = [value + gain + 0.001 * n for n, value in enumerate(stock)]
        for repeat in (1, 2, 3) if fold == 0 else (1,):
            of = {"fold": fold, "name": f"isic2017-fold{fold}-m.{repeat}"}
            runs.append(trained("m", repeat, [value + 0.01 * (repeat - 1) for value in better]) | of)
        if fold != 2:  # without nnU-Net's a fold tells nothing
            runs.append(trained("stock", 1, stock) | {"fold": fold, "name": f"isic2017-fold{fold}-stock"})
    alone = trained("l", 1, stock) | {"fold": 1}
    (row,) = over_folds(by_name(*runs, alone, result("s", None, fold=1)), "isic2017")
    # fold 0: 0.0415 in the mean of three trainings, fold 1: -0.0085
    assert row[:5] == ("m", "0, 1", "4", "0.7665", "+0.0165")
    assert row[6] == "+0.0415, -0.0085"
    low, high = (float(bound) for bound in row[5].split(" to "))
    assert -0.01 <= low < 0.0165 < high <= 0.043
    text = markdown(by_name(*runs))
    assert text.startswith("### isic2017, over folds\n\n| candidate | folds | trainings |")
    assert f"| {' | '.join(row)} |" in text
    assert over_folds(by_name(*runs), "hippocampus") == []


def test_an_unfinished_run_is_never_shown_with_a_dice() -> None:
    shown = cells(by_name(result("m", None, pseudo_dice=[0.9] * 7), result("l", 0.86)))
    assert list(shown) == ["isic2017-l", "isic2017-m"]
    assert shown["isic2017-m"]["Dice"] == shown["isic2017-m"]["to nnU-Net"] == "-"
    assert shown["isic2017-m"]["note"] == "unfinished: 7 of 20 epochs"


def test_a_failure_stays_in_the_table_with_its_message_and_an_earlier_one_with_the_result() -> None:
    failed = result("m-sgd", None, state="failed", failure=["Traceback", "ValueError: the loss | is NaN"])
    late = result("m", 0.87, earlier=[{"state": "failed"}], beside=["a", "b"])
    results = by_name(failed, late)
    assert cells(results)["isic2017-m-sgd"]["note"] == "failed: ValueError: the loss | is NaN"
    assert cells(results)["isic2017-m"]["note"] == "beside 2 others; 1 failed attempt before"
    text = markdown(results)
    assert "failed: ValueError: the loss \\| is NaN" in text
    assert "| m | 1 | 0.8700 | - | - | what was expected of m |" in text
    assert "| m-sgd | 0 | failed | - | - | what was expected of m-sgd |" in text


def test_the_note_tells_over_how_many_gpus_those_beside_were_spread() -> None:
    beside = ["a", "b", "c"]
    results = by_name(
        result("m", 0.87, beside=beside, gpus=2), result("l", 0.86, beside=beside, gpus=1), result("s", 0.85, gpus=2)
    )
    notes = {name: row["note"] for name, row in cells(results).items()}
    assert notes == {"isic2017-m": "beside 3 others on 2 GPUs", "isic2017-l": "beside 3 others", "isic2017-s": ""}


def test_a_supernets_row_tells_what_its_search_found() -> None:
    shown = cells(by_name(result("m-supernet", 0.81, search={"fitness": 0.82345}, beside=["a"])))
    assert shown["isic2017-m-supernet"]["note"] == "its search chose 0.8235; beside 1 other"


def test_trials_are_in_no_table_and_finish_no_run() -> None:
    trial = result("m", 0.99, trial=[1, 2])
    assert cells(by_name(trial, result("m-ema", 0.88))).keys() == {"isic2017-m-ema"}
    assert not is_finished(trial, None)
    assert is_finished(trial, (1, 2))
    assert not is_finished(result("m", 0.87), (1, 2))
    assert is_finished(result("m", 0.87), None)
    assert not is_finished(result("m", None), None)


def test_the_page_gets_the_table_between_its_markers_and_keeps_the_rest(tmp_path: Path) -> None:
    page, out = tmp_path / "page.md", tmp_path / "out"
    page.write_text(f"# Before\n\n{BEGIN}\nthe table before\n{END}\n\nafter\n")
    write_result(result("m-clip1", 0.8765), out)
    assert accuracy.main(["table", "--out", str(out), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Before\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "the table before" not in text
    assert "| isic2017-m-clip1 | 0.8765 ± 0.051 |" in text
    page.write_text("no markers")
    assert accuracy.main(["table", "--out", str(out), "--page", str(page)]) == 2
    assert page.read_text() == "no markers"


def test_the_repositorys_page_shows_the_results_that_are_kept() -> None:
    results = read_results([KEPT])
    assert {name: results[name]["dice"]["mean"] for name in ("isic2017-m-by-hand", "hippocampus-m-by-hand")} == {
        "isic2017-m-by-hand": 0.8745,
        "hippocampus-m-by-hand": 0.8386,
    }
    assert markdown(results) in PAGE.read_text(encoding="utf-8")


def test_the_terminal_shows_every_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=200).print(rich_table(by_name(result("m", 0.87), result("m", 0.83, "hippocampus"))))
    shown = capsys.readouterr().out
    assert "isic2017-m" in shown
    assert "hippocampus-m" in shown


def test_the_spread_is_that_of_the_cases_and_absent_classes_are_left_out() -> None:
    dice = [{"1": 0.8, "2": 0.6}, {"1": 0.9, "2": float("nan")}, {"1": 1.0, "2": 0.8}]
    summary = {
        "foreground_mean": {"Dice": 0.8},
        "metric_per_case": [
            {"prediction_file": f"/a.b/case_{n}.nii.gz", "metrics": {key: {"Dice": v} for key, v in case.items()}}
            for n, case in enumerate(dice)
        ],
    }
    found = dice_of(summary, {"background": 0, "anterior": 1, "posterior": 2})
    assert found["mean"] == 0.8
    # a case's mean over its classes: 0.7, 0.9, 0.9
    assert found["sd"] == pytest.approx(0.11547, abs=1e-5)
    assert found["per_class"]["anterior"] == pytest.approx(
        {"mean": 0.9, "sd": 0.1, "lowest": 0.8, "highest": 1.0, "cases": 3}
    )
    assert found["per_class"]["posterior"]["cases"] == 2
    assert found["per_class"]["posterior"]["mean"] == pytest.approx(0.7)
    assert list(found["by_case"]) == ["case_0", "case_1", "case_2"]
    assert found["by_case"]["case_1"] == {"anterior": 0.9, "posterior": None}


def test_a_run_that_went_on_keeps_what_ran_beside_its_first_part(tmp_path: Path) -> None:
    write_result(result("m", None, beside=["a", "b"]), tmp_path)
    write_result(result("m", 0.87, beside=["b", "c"]), tmp_path)
    assert read_results([tmp_path])["isic2017-m"]["beside"] == ["a", "b", "c"]
    write_result(result("l", None, state="failed", failure=["boom"], beside=["a"]), tmp_path)
    write_result(result("l", 0.87, beside=["c"]), tmp_path)
    assert read_results([tmp_path])["isic2017-l"]["beside"] == ["c"]  # a failed attempt is another run


def test_a_second_attempt_remembers_the_first_and_a_finished_result_is_not_lost(tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    write_result(result("m", None, state="failed", failure=["boom"]), out)
    write_result(result("m", 0.87), out)
    content = json.loads((out / "isic2017-m.json").read_text())
    assert [(attempt["state"], attempt["failure"]) for attempt in content["earlier"]] == [("failed", ["boom"])]
    write_result(result("m", None), kept)
    for folders in ([out, kept], [kept, out]):
        assert read_results(folders)["isic2017-m"]["dice"]["mean"] == 0.87
