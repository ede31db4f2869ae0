"""best_slicing.json: what is written is read again, and nothing that is wrong with it goes unnoticed."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from nnunetv2_slicemamba.search import (
    MAX_THICKNESS,
    MeasuredOn,
    SlicingChoice,
    SlicingFile,
    SlicingFileError,
    read_slicing_file,
    write_slicing_file,
)

CHOICE = SlicingChoice(
    slicing=((2, 4), (4, 4), (2, 2)),
    how_chosen="search",
    architecture=(1, 3, 0),
    fitness=0.875,
    seed=3,
    details={"evaluations": 1050},
)
CONTENT = SlicingFile(
    choice=CHOICE,
    candidates=((2, 2), (2, 4), (4, 2), (4, 4)),
    fitness_definition="mean foreground Dice",
    dataset="Dataset999_Test",
    configuration="2d",
    plans_name="nnUNetSliceMambaSPlans",
    fold=0,
    supernet_checkpoint_sha256="a" * 64,
    plans_sha256="b" * 64,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "slicing_search" / "best_slicing.json"
    write_slicing_file(CONTENT, path)
    return path


def change(path, **changes):
    """Change entries of the file; ... removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def test_what_was_written_is_read_again(file):
    assert read_slicing_file(file) == CONTENT


def test_a_slicing_without_a_supernet_is_read_again(tmp_path):
    content = SlicingFile(
        SlicingChoice(((1, 255, 3),) * 2, "fixed"), (), None, "D", "3d_fullres", "P", "all", None, None
    )
    write_slicing_file(content, tmp_path / "f.json")
    assert read_slicing_file(tmp_path / "f.json") == content


def test_the_file_is_plain_json_with_everything_that_tells_where_it_is_from(file):
    content = json.loads(file.read_text())
    assert content["schema_version"] == 1
    assert content["slicing"] == [[2, 4], [4, 4], [2, 2]]
    assert content["architecture"] == [1, 3, 0]
    assert content["how_chosen"] == "search"
    assert content["fitness"] == 0.875
    assert content["fold"] == 0
    assert set(content["versions"]) == {"python", "torch", "nnunetv2", "nnunetv2_slicemamba"}
    assert "not installed" not in content["versions"].values()
    assert content["created"].endswith("+00:00")
    assert len(file.read_text().splitlines()) == len(content) + 2, "not a line for each entry"


def test_a_failed_writing_leaves_the_old_file(file):
    with pytest.raises(ValueError, match="JSON cannot hold"):
        write_slicing_file(
            dataclasses.replace(CONTENT, choice=dataclasses.replace(CHOICE, details={"x": object()})), file
        )
    assert read_slicing_file(file) == CONTENT
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_file_of_another_network_is_refused_with_both_numbers():
    with pytest.raises(
        SlicingFileError,
        match=r"slicing file best.json has 3 blocks, this network has 22: it was chosen for .*plans "
        r"'nnUNetSliceMambaSPlans', .* Restore or name those plans, or choose anew",
    ):
        CONTENT.check_fits(22, 2, Path("best.json"))
    with pytest.raises(
        SlicingFileError, match=r"best.json has thicknesses of 2 axes, this network has 3: .*configuration '2d'"
    ):
        CONTENT.check_fits(3, 3, Path("best.json"))
    CONTENT.check_fits(3, 2, Path("best.json"))


@pytest.mark.parametrize("text", ["", '{"slicing": [[2,', "nonsense", "\x00\x01"])
def test_a_corrupt_file_is_named_with_the_remedy(file, text):
    file.write_text(text)
    with pytest.raises(
        SlicingFileError, match=r"best_slicing.json is no JSON: .* Make it again with `slicemamba search`"
    ):
        read_slicing_file(file)


def test_bytes_that_are_no_text_are_refused(file):
    file.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(SlicingFileError, match="is no JSON"):
        read_slicing_file(file)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_json_that_is_no_object_is_refused(file, content):
    file.write_text(content)
    with pytest.raises(SlicingFileError, match=r"is not a slicing: its content is .*, it must be an object"):
        read_slicing_file(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SlicingFileError, match=r"the slicing file .*none.json cannot be read \(No such file"):
        read_slicing_file(tmp_path / "none.json")


def test_a_newer_schema_is_refused_with_the_remedy(file):
    change(file, schema_version=2, slicing=...)
    with pytest.raises(
        SlicingFileError, match="schema version 2, this package reads up to 1; update nnunetv2-slicemamba"
    ):
        read_slicing_file(file)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(SlicingChoice)])
def test_each_missing_entry_of_the_choice_is_named(file, key):
    change(file, **{key: ...})
    with pytest.raises(SlicingFileError, match=f"is not valid: it lacks {key}"):
        read_slicing_file(file)


@pytest.mark.parametrize(
    "key", [f.name for f in dataclasses.fields(SlicingFile) if f.name not in ("choice", "measured_on", "complete")]
)
def test_each_missing_entry_of_the_rest_is_named(file, key):
    change(file, **{key: ...})
    with pytest.raises(SlicingFileError, match=f"is not valid: it lacks {key}"):
        read_slicing_file(file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 0}, "schema_version is 0, it must be 1"),
        ({"schema_version": "1"}, 'schema_version is "1", it must be 1'),
        (
            {"slicing": [[2, 4], [4, 4], [2, 0]]},
            r"thickness \(.*\) of block 2 is out of range: every entry must be a whole number from 1 to 255",
        ),
        ({"slicing": [[2, 4], [4, 256], [2, 2]]}, r"thickness \(.*256.*\) of block 1 is out of range"),
        ({"slicing": [[2, 4], [4, 4], [2, 2.0]]}, "slicing is .* it must be a list with a list of whole numbers"),
        ({"slicing": [[2, 4], [4, 4], [True, 2]]}, "slicing is .* whole numbers"),
        (
            {"slicing": [[2, 4], [4, 4], [2, 2, 2]]},
            r"thickness \(2, 2, 2\) of block 2 has 3 entries for 2 spatial axes; give one",
        ),
        (
            {"slicing": [[2], [4], [2]], "architecture": None},
            r"thickness \(2,\) of block 0 must have one number per axis, 2 in 2D and 3 in 3D",
        ),
        ({"slicing": [], "architecture": []}, "a slicing needs at least one block"),
        ({"slicing": "2x4"}, 'slicing is "2x4"'),
        ({"architecture": [1, 3]}, "2 candidate indices for 3 blocks"),
        ({"architecture": [1, 3, 4]}, "block 2 has candidate 4, there are 4 candidates"),
        ({"architecture": [1, 3, -1]}, "block 2 has candidate -1"),
        ({"architecture": [1, 3, 1]}, r"block 2 has candidate 1, which is \(2, 4\), but thickness \(2, 2\)"),
        ({"architecture": [1, 3, "0"]}, "architecture is .* a list of candidate indices"),
        ({"candidates": [[2, 2], [2, 4], [4, 2], [4, 0]]}, r"thickness \(4, 0\) of candidate 3 is out of range"),
        ({"candidates": []}, "block 0 has candidate 1, there are 0 candidates"),
        ({"how_chosen": "guess"}, "how_chosen is 'guess', it must be one of search, fixed, random, consensus, file"),
        ({"fitness": math.nan}, "fitness is nan, it must be finite"),
        ({"fitness": "good"}, 'fitness is "good", it must be a number, or null'),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"details": []}, "details is .*, it must be an object"),
        ({"dataset": 501}, "dataset is 501, it must be a text"),
        ({"configuration": None}, "configuration is null"),
        ({"plans_name": 1}, "plans_name is 1"),
        ({"fold": -1}, "fold is -1"),
        ({"fold": None}, "fold is null, it must be a fold number"),
        (
            {"supernet_checkpoint_sha256": "abc"},
            "supernet_checkpoint_sha256 is .abc., it must be 64 hexadecimal digits",
        ),
        ({"plans_sha256": "G" * 64}, "plans_sha256 is .*, it must be 64 hexadecimal digits"),
        ({"fitness_definition": 3}, "fitness_definition is 3"),
        ({"versions": "1.0"}, "versions is"),
        ({"created": 2025}, "created is 2025"),
        ({"measured_on": "holdout"}, 'measured_on is "holdout", it must be an object with kind, number and sha256'),
        ({"measured_on": {"kind": "test", "number": 1, "sha256": None}}, "measured_on has kind 'test', it must be one"),
        ({"complete": 1}, "complete is 1, it must be true or false"),
    ],
)
def test_each_wrong_entry_is_named_with_its_rule(file, changes, words):
    change(file, **changes)
    with pytest.raises(SlicingFileError, match=f"best_slicing.json is not valid: .*{words}.*Make it again"):
        read_slicing_file(file)


def test_a_file_says_what_its_fitness_was_measured_on_and_whether_the_search_was_complete(file):
    content = dataclasses.replace(CONTENT, measured_on=MeasuredOn("holdout", 4, "c" * 64), complete=False)
    write_slicing_file(content, file)
    stored = json.loads(file.read_text())
    assert stored["measured_on"] == {"kind": "holdout", "number": 4, "sha256": "c" * 64}
    assert stored["complete"] is False
    assert read_slicing_file(file) == content


@pytest.mark.parametrize(("how_chosen", "measured_on"), [("search", MeasuredOn("validation")), ("fixed", None)])
def test_a_file_from_before_holdouts_was_measured_on_validation_cases_and_is_complete(file, how_chosen, measured_on):
    change(file, measured_on=..., complete=..., how_chosen=how_chosen)
    content = read_slicing_file(file)
    assert content.measured_on == measured_on
    assert content.complete


def test_entries_that_a_later_version_adds_are_no_obstacle(file):
    change(file, latency_ms=3.5)
    assert read_slicing_file(file) == CONTENT


@pytest.mark.parametrize("thickness", [0, -1, MAX_THICKNESS + 1, 2.0, True, "2"])
def test_a_choice_cannot_hold_a_thickness_that_the_network_cannot(thickness):
    with pytest.raises(ValueError, match=r"thickness .* of block 1 is out of range: .* from 1 to 255"):
        SlicingChoice(((2, 2), (2, thickness)), "fixed")


def test_a_choice_cannot_hold_an_undefined_fitness():
    with pytest.raises(ValueError, match="fitness is nan, it must be finite; give None where it is undefined"):
        dataclasses.replace(CHOICE, fitness=math.nan)
