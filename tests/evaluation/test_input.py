"""Input that is wrong is refused before anything is computed, with all that is wrong at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.evaluation import Evaluation, EvaluationSettings, evaluate_folders
from nnunetv2_slicemamba.evaluation import evaluate as evaluate_module
from tests.evaluation.evaluation_folders import write_case, write_dataset_json, write_folders

QUICK = EvaluationSettings(resamples=200, surface=False)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_folders(tmp_path)


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: object) -> None:
        pytest.fail("a case was evaluated before all were checked")

    monkeypatch.setattr(evaluate_module, "evaluate_case", fail)


def evaluate(predictions: Path, truth: Path, **options: object) -> Evaluation:
    return evaluate_folders(predictions, truth, settings=QUICK, **options)  # type: ignore[arg-type]


def test_all_problems_are_listed_at_once(folders: tuple[Path, Path], nothing_computed: None) -> None:
    predictions, truth = folders
    (predictions / "case_0.png").unlink()
    (predictions / "case_1.png").write_text("no image")
    write_case(predictions, "case_2", np.full((24, 32), 255))
    write_case(predictions, "case_3", np.zeros((24, 30)))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((24, 32, 3), np.uint8), isVector=True), str(truth / "case_4.png"))
    with pytest.raises(InputError) as caught:
        evaluate(predictions, truth)
    message = str(caught.value)
    assert message.startswith("5 of 6 cases cannot be evaluated, nothing was computed:")
    for expected in (
        "without a prediction: case_0; predict them, or evaluate only the others with --chill",
        "case_1: prediction case_1.png cannot be read by NaturalImage2DIO: ",
        "case_2: the prediction has the labels [255], dataset.json knows [0, 1, 2]",
        "case_3: the prediction has 24x30 pixels, the truth 24x32",
        "case_4: truth case_4.png has 3 channels, a segmentation has one",
    ):
        assert expected in message
    assert "case_5" not in message


def test_white_masks_that_were_not_converted_are_told_from_other_labels(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    write_case(truth, "case_2", np.full((24, 32), 255))
    write_case(truth, "case_3", np.full((24, 32), 7))
    with pytest.raises(InputError) as caught:
        evaluate(predictions, truth)
    known = "dataset.json knows [0, 1, 2]"
    assert f"case_2: the truth has the labels [255], {known}; take the masks of labelsTs" in str(caught.value)
    assert str(caught.value).endswith(f"case_3: the truth has the labels [7], {known}")


def test_spacings_that_differ_are_refused_and_shifted_origins_noted(tmp_path: Path, nothing_computed: None) -> None:
    labels = np.ones((3, 4, 5))
    write_case(tmp_path / "t", "a", labels, (3.0, 1.0, 1.0))
    write_case(tmp_path / "p", "a", labels, (2.5, 1.0, 1.0))
    with pytest.raises(
        InputError, match=r"a: the prediction's spacing is \(2.5, 1.0, 1.0\), the truth's \(3.0, 1.0, 1.0\)"
    ):
        evaluate(tmp_path / "p", tmp_path / "t")


def test_shifted_origins_are_noted(tmp_path: Path) -> None:
    labels = np.zeros((3, 4, 5))
    labels[1, 1:3] = 1
    for folder in "tp":
        write_case(tmp_path / folder, "a", labels, (3.0, 1.0, 1.0))
    assert not any("origin" in note for note in evaluate(tmp_path / "p", tmp_path / "t").notes)
    image = sitk.ReadImage(str(tmp_path / "p" / "a.nii.gz"))
    image.SetOrigin((5.0, 0.0, 0.0))
    sitk.WriteImage(image, str(tmp_path / "p" / "a.nii.gz"))
    notes = evaluate(tmp_path / "p", tmp_path / "t").notes
    assert any("origin or direction of truth and prediction differ in 1 case and" in note for note in notes)


def test_probabilities_are_no_segmentation(tmp_path: Path) -> None:
    for folder in "tp":
        write_case(tmp_path / folder, "a", np.zeros((3, 4, 5)), (1.0, 1.0, 1.0))
    image = sitk.GetImageFromArray(np.full((3, 4, 5), 0.3, dtype=np.float32))
    sitk.WriteImage(image, str(tmp_path / "p" / "a.nii.gz"))
    with pytest.raises(InputError, match="a: prediction a.nii.gz holds values that are not whole numbers"):
        evaluate(tmp_path / "p", tmp_path / "t")


def test_missing_predictions_can_be_left_out_and_extra_ones_are_noted(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    (predictions / "case_0.png").unlink()
    shutil.copy(predictions / "case_1.png", predictions / "other.png")
    evaluation = evaluate(predictions, truth, partial=True)
    assert [case.case for case in evaluation.cases] == [f"case_{i}" for i in range(1, 6)]
    assert "1 case without a prediction is left out: case_0" in evaluation.notes
    assert "1 prediction without a truth is left out: other" in evaluation.notes


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p, t: shutil.rmtree(p), "PREDICTIONS .* is not a folder"),
        (lambda p, t: [file.unlink() for file in t.iterdir()], r"there are no \*.png files in .*labels"),
        (
            lambda p, t: [file.rename(p / f"x{file.name}") for file in p.iterdir()],
            "no file in .* has the name of one in",
        ),
        (lambda p, t: (p.parent / "dataset.json").write_text("{"), "dataset.json is no JSON: line 1, column 2"),
        (lambda p, t: (p.parent / "dataset.json").write_text('{"labels": {}}'), "has no 'file_ending'"),
        (lambda p, t: write_dataset_json(p.parent, {"liver": 1}), "nnU-Net refuses the labels .*Background label"),
        (lambda p, t: write_dataset_json(p.parent, ending=".xyz"), r"there are no \*.xyz files"),
    ],
)
def test_folders_and_dataset_json(folders: tuple[Path, Path], break_it, message: str, nothing_computed: None) -> None:
    break_it(*folders)
    with pytest.raises(InputError, match=message):
        evaluate(*folders)


def test_the_same_folder_twice_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="are the same folder"):
        evaluate(folders[0], folders[0])


def test_dataset_json_is_found_beside_the_predictions_first(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, truth = folders
    assert evaluate(predictions, truth).dataset_json == tmp_path / "dataset.json"
    write_dataset_json(predictions, {"background": 0, "hepar": 1, "lien": 2})
    assert [one.name for one in evaluate(predictions, truth).classes] == ["hepar", "lien"]
    given = write_dataset_json(truth, {"background": 0, "leber": 1, "milz": 2})
    assert [one.name for one in evaluate(predictions, truth, dataset_json=given).classes] == ["leber", "milz"]
    with pytest.raises(InputError, match="-djfile .* is not a file"):
        evaluate(predictions, truth, dataset_json=tmp_path / "nothing.json")


def test_without_dataset_json_the_labels_are_found_or_given(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path, dataset=False)
    found = evaluate(predictions, truth)
    assert [one.labels for one in found.classes] == [(1,), (2,)]
    assert any("there is no dataset.json" in note for note in found.notes)
    given = evaluate(predictions, truth, labels=[2])
    assert [one.labels for one in given.classes] == [(2,)]
    assert given.paper.scores["2"] == found.paper.scores["2"]
    for labels, message in (([0], "label 0 is the background"), ([], "no foreground label"), ([1, 2], "choose one")):
        with pytest.raises(InputError, match=message):
            evaluate(predictions, truth, labels=labels, ignore_label=2)


def test_masks_of_255_against_labels_of_1_are_pointed_out(tmp_path: Path) -> None:
    write_case(tmp_path / "t", "a", np.full((4, 4), 1))
    write_case(tmp_path / "p", "a", np.full((4, 4), 255))
    notes = evaluate(tmp_path / "p", tmp_path / "t").notes
    assert "the labels [1] occur only in the truth" in notes
    assert "the labels [255] occur only in the predictions" in notes


def test_a_grey_image_is_not_taken_for_a_hundred_classes(tmp_path: Path) -> None:
    for folder in "tp":
        write_case(tmp_path / folder, "a", np.arange(100).reshape(10, 10))
    with pytest.raises(InputError, match="the files hold 99 different values"):
        evaluate(tmp_path / "p", tmp_path / "t")


def test_files_of_several_endings_need_a_dataset_json(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path, cases=3, dataset=False)
    write_case(truth, "volume", np.ones((3, 3, 3)), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"that nnU-Net can read are: 3 \.png, 1 \.nii\.gz"):
        evaluate(predictions, truth)


def test_swapped_folders_are_noted(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    (predictions / "predict_from_raw_data_args.json").write_text(json.dumps({}))
    assert not any("looks like" in note for note in evaluate(predictions, truth).notes)
    assert any("looks like a folder of predictions" in note for note in evaluate(truth, predictions).notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence is 95"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"hd95_one_empty": "zero"}, "cannot be 'zero'; give one of undefined, diagonal"),
        ({"resamples": 5}, "5 bootstrap resamples"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvaluationSettings(**options)


@pytest.mark.parametrize("described", [True, False])
def test_labels_that_nobody_has_are_refused(
    folders: tuple[Path, Path], nothing_computed: None, described: bool
) -> None:
    predictions, truth = folders
    if not described:
        (truth.parent / "dataset.json").unlink()
    with pytest.raises(InputError, match="--labels names 99, which neither dataset.json knows nor a file holds"):
        evaluate(predictions, truth, labels=[1, 99])
    with pytest.raises(InputError, match="label -1 is negative, labels begin at 0"):
        evaluate(predictions, truth, labels=[-1])


def test_a_label_that_dataset_json_knows_may_be_in_no_file(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    write_dataset_json(truth.parent, {"background": 0, "liver": 1, "spleen": 2, "rare": 3})
    assert np.isnan(evaluate(predictions, truth, labels=[3]).per_case.mean["dice"].mean)


def test_one_case_has_no_intervals_and_no_note_of_them(tmp_path: Path) -> None:
    predictions, truth = write_folders(tmp_path, cases=1)
    evaluation = evaluate(predictions, truth)
    notes = " ".join(evaluation.notes_for(["per-case"]))
    assert "there is one case, so there are no intervals" in notes
    assert "bootstrap" not in notes
    assert all(np.isnan(summary.low) for summary in evaluation.per_case.mean.values())


@pytest.mark.parametrize("labels", [["liver"], {"0": "background", "1": "liver"}])
def test_labels_of_another_shape_are_refused(folders: tuple[Path, Path], labels: object) -> None:
    predictions, truth = folders
    content = {"labels": labels, "file_ending": ".png"}
    (truth.parent / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"dataset\.json.*labels|labels.*dataset\.json"):
        evaluate(predictions, truth)


def test_a_dataset_json_with_a_byte_order_mark_is_read(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    text = (truth.parent / "dataset.json").read_text()
    (truth.parent / "dataset.json").write_text(text, encoding="utf-8-sig")
    assert [one.name for one in evaluate(predictions, truth).classes] == ["liver", "spleen"]


def test_a_name_in_the_other_unicode_form_is_the_same_case(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    for folder, form in ((predictions, "L\u00e4sion.png"), (truth, "La\u0308sion.png")):
        (folder / "case_0.png").rename(folder / form)
    evaluation = evaluate(predictions, truth)
    assert "L\u00e4sion" in [case.case for case in evaluation.cases]
    assert len(evaluation.cases) == 6


def test_files_with_another_ending_are_left_out_by_name(folders: tuple[Path, Path]) -> None:
    predictions, truth = folders
    for name in ("case_9.bmp", "._case_1.bmp", "plans.json", "case_0.npz"):
        (truth / name).touch()
    told = f"1 file with another ending than the cases' is left out: {truth / 'case_9.bmp'}"
    assert told in evaluate(predictions, truth).notes
