"""A folder's evaluation agrees with scikit-learn's on the same pixels and with nnU-Net's own on the same files."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, compute_metrics_on_folder
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from scipy.ndimage import binary_erosion
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, recall_score

from nnunetv2_slicemamba.evaluation import Evaluation, EvaluationSettings, evaluate_folders
from nnunetv2_slicemamba.evaluation import evaluate as evaluate_module
from nnunetv2_slicemamba.evaluation.metrics import MASK_METRICS
from tests.evaluation.evaluation_folders import LABELS, write_case, write_dataset_json, write_folders

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
NO_SURFACE = EvaluationSettings(surface=False, resamples=200)
QUICK = EvaluationSettings(resamples=200)
RATES = ("Dice", "IoU")


def assert_agrees(evaluation: Evaluation, summary: dict[str, Any]) -> None:
    """Every count and rate of every case is nnU-Net's."""
    keys = {one.name: one.key for one in evaluation.classes}
    by_file = {Path(entry["prediction_file"]).name: entry["metrics"] for entry in summary["metric_per_case"]}
    assert len(by_file) == len(evaluation.cases)
    for case in evaluation.cases:
        theirs = {str(key): value for key, value in by_file[case.prediction.name].items()}
        for name, scores in case.scores.items():
            expected = theirs[keys[name]]
            counts = [expected[key] for key in ("TP", "FP", "FN", "TN")]
            assert [scores.counts.tp, scores.counts.fp, scores.counts.fn, scores.counts.tn] == counts
            for rate in RATES:
                assert scores.value(rate.lower()) == pytest.approx(expected[rate], nan_ok=True)


def of_nnunet(evaluation: Evaluation, regions: list[Any], ignore_label: int | None = None) -> dict[str, Any]:
    """Entries of nnU-Net's function for one case, of every case."""
    files = [(str(case.truth), str(case.prediction)) for case in evaluation.cases]
    return {"metric_per_case": [compute_metrics(*pair, NaturalImage2DIO(), regions, ignore_label) for pair in files]}


def test_summary_json_of_nnunet_with_an_organ_missing_in_some_cases(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path)
    evaluation = evaluate_folders(predictions, truth, settings=NO_SURFACE)
    file = tmp_path / "summary.json"
    compute_metrics_on_folder(
        str(truth), str(predictions), str(file), NaturalImage2DIO(), ".png", [1, 2], num_processes=1
    )
    summary = json.loads(file.read_text())
    assert_agrees(evaluation, summary)
    for one in evaluation.classes:
        for rate in RATES:
            mine = evaluation.per_case.summaries[one.name][rate.lower()]
            assert mine.mean == pytest.approx(summary["mean"][one.key][rate])
    for rate in RATES:
        assert evaluation.per_case.mean[rate.lower()].mean == pytest.approx(summary["foreground_mean"][rate])
    spleen = evaluation.per_case.summaries["spleen"]["dice"]
    assert (spleen.undefined, spleen.one_empty) == (1, 1)
    assert math.isnan(evaluation.cases[1].scores["spleen"].value("dice"))
    assert evaluation.cases[2].scores["spleen"].value("dice") == 0


def test_regions_as_nnunet_evaluates_them(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path, n_labels=4)
    write_dataset_json(tmp_path, {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3})
    evaluation = evaluate_folders(predictions, truth, settings=NO_SURFACE)
    assert [one.key for one in evaluation.classes] == ["(1, 2, 3)", "(2, 3)", "3"]
    assert_agrees(evaluation, of_nnunet(evaluation, [(1, 2, 3), (2, 3), 3]))


def test_the_ignore_label_as_nnunet_treats_it(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path)
    for file in truth.glob("*.png"):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        labels[5:12, 3:20] = 3
        write_case(truth, file.stem, labels)
    write_dataset_json(tmp_path, {**LABELS, "ignore": 3})
    evaluation = evaluate_folders(predictions, truth, settings=QUICK)
    assert evaluation.ignore_label == 3
    assert_agrees(evaluation, of_nnunet(evaluation, [1, 2], ignore_label=3))
    # what is predicted where the truth is unknown is neither right nor wrong, also for the borders
    for file in predictions.glob("*.png"):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        labels[5:12, 3:20] = 1
        write_case(predictions, file.stem, labels)
    again = evaluate_folders(predictions, truth, settings=QUICK)
    for before, after in zip(evaluation.cases, again.cases, strict=True):
        assert repr(before.scores) == repr(after.scores)  # NaN does not equal NaN


def test_pooled_metrics_are_scikit_learns_over_all_pixels_at_once(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path)
    evaluation = evaluate_folders(predictions, truth, settings=NO_SURFACE)
    pixels = [
        np.concatenate([sitk.GetArrayFromImage(sitk.ReadImage(str(file))).ravel() for file in sorted(folder.iterdir())])
        for folder in (truth, predictions)
    ]
    for one in evaluation.classes:
        true, predicted = (np.isin(values, one.labels) for values in pixels)
        scores, counts = evaluation.paper.scores[one.name], evaluation.paper.counts[one.name]
        assert [counts.tn, counts.fp, counts.fn, counts.tp] == confusion_matrix(true, predicted).ravel().tolist()
        assert scores["iou"] == pytest.approx(jaccard_score(true, predicted))
        assert scores["dice"] == pytest.approx(f1_score(true, predicted))
        assert scores["sensitivity"] == pytest.approx(recall_score(true, predicted))
        assert scores["specificity"] == pytest.approx(recall_score(~true, ~predicted))
        assert scores["accuracy"] == pytest.approx((true == predicted).mean())
    assert evaluation.paper.mean["dice"] == pytest.approx(
        f1_score(pixels[0], pixels[1], labels=[1, 2], average="macro")
    )


def test_spacing_is_the_files_and_2d_images_are_2d(tmp_path: Path) -> None:
    truth, prediction = np.zeros((6, 16, 16), dtype=np.uint8), np.zeros((6, 16, 16), dtype=np.uint8)
    truth[1, 4:8, 4:8] = prediction[3, 4:8, 4:8] = 1
    write_case(tmp_path / "t", "a", truth, (7.0, 0.5, 0.5))
    write_case(tmp_path / "p", "a", prediction, (7.0, 0.5, 0.5))
    volume = evaluate_folders(tmp_path / "p", tmp_path / "t", settings=QUICK).cases[0]
    assert (volume.shape, volume.spacing) == ((6, 16, 16), (7.0, 0.5, 0.5))
    assert volume.scores["1"].value("hd95") == pytest.approx(14.0)
    flat = tmp_path / "flat"
    write_case(flat / "t", "a", truth[1])
    write_case(flat / "p", "a", np.roll(truth[1], 3, axis=1))
    evaluation = evaluate_folders(flat / "p", flat / "t", settings=QUICK)
    assert evaluation.unit == "px"
    assert evaluation.cases[0].spacing == (1.0, 1.0)
    assert evaluation.cases[0].scores["1"].value("hd95") == pytest.approx(3.0)
    # of one slice every pixel would lie on the border in 3D, and the large middle would bring the distances down
    write_case(tmp_path / "slice" / "t", "a", truth[1:2], (7.0, 1.0, 2.0))
    write_case(tmp_path / "slice" / "p", "a", np.roll(truth[1:2], 3, axis=2), (7.0, 1.0, 2.0))
    single = evaluate_folders(tmp_path / "slice" / "p", tmp_path / "slice" / "t", settings=QUICK)
    assert (single.unit, single.cases[0].spacing) == ("mm", (1.0, 2.0))
    assert single.cases[0].scores["1"].value("hd95") == pytest.approx(6.0)


def test_a_tiff_volume_takes_its_spacing_from_the_file_beside_either_of_the_two(tmp_path: Path) -> None:
    labels = np.zeros((5, 12, 12), dtype=np.uint8)
    labels[1, 4:8, 4:8] = 1
    for folder, moved in (("t", labels), ("p", np.roll(labels, 2, axis=0))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", moved)
    without = evaluate_folders(tmp_path / "p", tmp_path / "t", settings=QUICK)
    assert (without.unit, without.cases[0].scores["1"].value("hd95")) == ("voxels", pytest.approx(2.0))
    (tmp_path / "p" / "a.json").write_text(json.dumps({"spacing": [4.0, 1.0, 1.0]}))
    beside = evaluate_folders(tmp_path / "p", tmp_path / "t", settings=QUICK)
    assert (beside.unit, beside.cases[0].scores["1"].value("hd95")) == ("mm", pytest.approx(8.0))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the hippocampus labels of shared/data")
def test_eroded_and_shifted_hippocampi(tmp_path: Path) -> None:
    files = sorted((DATA / "demo_hippocampus3d" / "labelsTr").glob("*.nii.gz"))[:4]
    for position, file in enumerate(files):
        image = sitk.ReadImage(str(file))
        labels = sitk.GetArrayFromImage(image)
        eroded = np.where(binary_erosion(labels > 0), labels, 0).astype(labels.dtype)
        changed = sitk.GetImageFromArray(np.roll(labels, 2, axis=1) if position % 2 else eroded)
        changed.CopyInformation(image)
        for folder, written in (("t", image), ("p", changed)):
            (tmp_path / folder).mkdir(exist_ok=True)
            sitk.WriteImage(written, str(tmp_path / folder / file.name))
    write_dataset_json(tmp_path, {"background": 0, "Anterior": 1, "Posterior": 2}, ".nii.gz")
    evaluation = evaluate_folders(
        tmp_path / "p", tmp_path / "t", settings=EvaluationSettings(tolerance=1, resamples=200)
    )
    for position, case in enumerate(evaluation.cases):
        for scores in case.scores.values():
            if position % 2:
                assert 1 < scores.value("hd95") <= 2
                assert 0.3 < scores.value("nsd") < 0.99
            else:
                assert scores.counts.fp == 0
                assert 1 <= scores.value("hd95") <= 2
                assert scores.value("nsd") > 0.9
            assert 0 < scores.value("dice") < 1


def test_an_interrupted_evaluation_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, truth = write_folders(tmp_path)
    journal = tmp_path / "journal.jsonl"
    evaluated = []
    real = evaluate_module.evaluate_case
    monkeypatch.setattr(evaluate_module, "evaluate_case", lambda job: (evaluated.append(job.pair.case), real(job))[1])

    def interrupt(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("Evaluating", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_folders(predictions, truth, settings=QUICK, journal=journal, progress=interrupt)
    with open(journal, "ab") as file:
        file.write(b'\n\xe9{"key": 3}\n' + bytes(64) + b'\n{"key": "a", "shape": 5}\n{"key": "half a li')
    write_case(predictions, "case_0", np.zeros((24, 32)))  # predicted anew in the meantime
    resumed = evaluate_folders(predictions, truth, settings=QUICK, journal=journal)
    assert evaluated == [f"case_{i}" for i in (0, 1, 2, 3, 0, 4, 5)]
    fresh = evaluate_folders(predictions, truth, settings=QUICK)
    assert repr(resumed.cases) == repr(fresh.cases)
    evaluated.clear()
    evaluate_folders(predictions, truth, settings=EvaluationSettings(tolerance=9, resamples=200), journal=journal)
    assert len(evaluated) == 6, "other settings, other results"


@pytest.mark.parametrize("surface", [True, False])
def test_finished_cases_of_an_earlier_version_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surface: bool
) -> None:
    predictions, truth = write_folders(tmp_path, cases=3)
    settings = EvaluationSettings(tolerance=1.5, surface=surface, resamples=200)
    classes = [{"name": "liver", "labels": [1], "key": "1"}, {"name": "spleen", "labels": [2], "key": "2"}]
    counts = {"tp": 3, "fp": 1, "fn": 2, "tn": 7}
    journal = tmp_path / "journal.jsonl"
    for case in ("case_0", "case_1"):
        pair = [predictions / f"{case}.png", truth / f"{case}.png"]
        files = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in pair]
        versions = [version("monai"), version("nnunetv2"), "NaturalImage2DIO"]
        described = json.dumps([files, [classes, None, 1.5 if surface else None, "undefined"], versions])
        of_masks = {metric.key: None for metric in MASK_METRICS}
        scores = {
            "liver": {"counts": counts, **of_masks, "hd95": 4.25},
            "spleen": {"counts": counts, **of_masks, "hd95": 1.0, "nsd": 0.5},
        }
        if case == "case_1":
            del scores["spleen"]["nsd"]
        key = hashlib.sha256(described.encode()).hexdigest()
        with open(journal, "a") as file:
            file.write("\n" + json.dumps({"key": key, "shape": [24, 32], "spacing": [1.0, 1.0], "scores": scores}))
    evaluated = []
    real = evaluate_module.evaluate_case
    monkeypatch.setattr(evaluate_module, "evaluate_case", lambda job: (evaluated.append(job.pair.case), real(job))[1])
    found = evaluate_folders(predictions, truth, settings=settings, journal=journal).cases[0]
    # of case_1 the line lacks a metric, as if that one had been added since
    assert evaluated == (["case_1", "case_2"] if surface else ["case_2"])
    assert (found.shape, found.spacing) == ((24, 32), (1.0, 1.0))
    assert found.scores["liver"].value("dice") == pytest.approx(6 / 9)
    assert found.scores["liver"].value("hd95") == pytest.approx(4.25 if surface else math.nan, nan_ok=True)
    assert math.isnan(found.scores["liver"].value("nsd"))
    assert found.scores["spleen"].value("nsd") == pytest.approx(0.5 if surface else math.nan, nan_ok=True)


def test_several_processes_give_the_same_result(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path, cases=3)
    seen: list[tuple[str, int, int]] = []
    several = evaluate_folders(
        predictions, truth, settings=NO_SURFACE, processes=2, progress=lambda *news: seen.append(news)
    )
    assert repr(several) == repr(evaluate_folders(predictions, truth, settings=NO_SURFACE))
    assert seen == [(phase, done, 3) for phase in ("Checking", "Evaluating") for done in range(4)]
