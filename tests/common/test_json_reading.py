"""Whatever is wrong with a JSON file, the error names the file, the place in it and what makes it anew."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import nnunetv2_slicemamba
from nnunetv2_slicemamba import search, trainers
from nnunetv2_slicemamba.common import nnunet_files
from nnunetv2_slicemamba.common.json_reading import JsonFileError, JsonKind
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON, PLANS_JSON, SPLITS_JSON, SUMMARY_JSON

KINDS = [value for value in vars(nnunet_files).values() if isinstance(value, JsonKind)]
NOTE = JsonKind("a note", {"text": str, "pages?": [int]}, "Write it again")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no JSON: it is empty"),
        (b" \n", "is no JSON: it is empty"),
        (b"\0" * 64, "is no JSON: it holds nothing but zeros"),
        (b'{"text":\n "half', r"is no JSON: line 2, column 2: Unterminated string"),
        (b'{"text": "a",}', r"is no JSON: line 1, column 1[34]: "),
        (b'{\n"text": "\xe9"}', r"is no JSON: line 2 is not UTF-8 \(byte 0xe9\)"),
        (b"[" * 100_000, "is no JSON: its values are nested too deeply"),
        (b'{"text": "a", "pages": [1' + b"0" * 400 + b"]}", r"is no JSON: the number 1000\d+\.\.\. has 401 digits"),
        (b'{"text": "a", "pages": [1' + b"0" * 9000 + b"]}", r"is no JSON: the number 1000\d+\.\.\. has 9001 digits"),
        (b"[]", "is not a note: its content is a list of 0, it must be an object"),
        (b"{}", "is not a note: it has no 'text'"),
        (b'{"text": null}', "is not a note: text is null, it must be a text"),
        (b'{"text": "a", "pages": 3}', r"is not a note: pages is 3, it must be a list"),
        (b'{"text": "a", "pages": [1, "2"]}', r"is not a note: pages\[1\] is '2', it must be a whole number"),
        (b'{"text": "a", "pages": [true]}', r"is not a note: pages\[0\] is True, it must be a whole number"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_what_is_wrong_is_named_with_the_remedy(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "note.json"
    file.write_bytes(content)
    with pytest.raises(JsonFileError, match=rf"note\.json {words}.*\. Write it again$"):
        NOTE.read(file)
    assert not NOTE.is_readable(file)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "none.json", tmp_path):
        with pytest.raises(JsonFileError, match=rf"{file} cannot be read \(.*\)\. Write it again"):
            NOTE.read(file)
    assert NOTE.read_if_there(tmp_path / "none.json") is None


def test_an_editors_byte_order_mark_is_read_over_unless_nnunet_would_stumble_over_it(tmp_path: Path) -> None:
    file = tmp_path / "note.json"
    file.write_text('{"text": "ä", "more": NaN}', encoding="utf-8-sig")
    assert NOTE.read(file)["text"] == "ä"
    with pytest.raises(JsonFileError, match=r"byte order mark \(BOM\), which nnU-Net cannot read. Save it as UTF-8"):
        JsonKind("a note", dict, "", for_nnunet=True).read(file)


PLANS = {"plans_name": "P", "configurations": {"2d": {"patch_size": [8, 8], "spacing": [1, 1.5]}}}
METRICS = {"1": {"Dice": None, "TP": 3}}
SUMMARY = {
    "metric_per_case": [{"prediction_file": "a", "reference_file": "b", "metrics": METRICS}],
    "mean": METRICS,
    "foreground_mean": {"Dice": float("nan")},
}


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        (PLANS_JSON, PLANS, None),
        (PLANS_JSON, {**PLANS, "configurations": []}, "configurations is a list of 0, it must be an object"),
        (
            PLANS_JSON,
            {"configurations": {"2d": {"spacing": "1"}}},
            "configurations.2d.spacing is '1', it must be a list",
        ),
        (DATASET_JSON, {"labels": {"background": 0, "both": [1, 2]}, "file_ending": ".png"}, None),
        (
            DATASET_JSON,
            {"labels": ["background"], "file_ending": ".png"},
            "labels is a list of 1, it must be an object",
        ),
        (DATASET_JSON, {"labels": {"a": [1, "2"]}, "file_ending": ".png"}, r"labels.a\[1\] is '2', it must be a whole"),
        (
            DATASET_JSON,
            {"labels": {"a": 1.5}, "file_ending": ""},
            "labels.a is 1.5, it must be a whole number or a list",
        ),
        (SPLITS_JSON, [{"train": ["a"], "val": []}], None),
        (SPLITS_JSON, {"train": [], "val": []}, "its content is an object of 2, it must be a list"),
        (SPLITS_JSON, [{"train": ["a"]}], r"\[0\] has no 'val'"),
        (SUMMARY_JSON, SUMMARY, None),
        (SUMMARY_JSON, {**SUMMARY, "metric_per_case": [{}]}, r"metric_per_case\[0\] has no 'prediction_file' and no"),
        (SUMMARY_JSON, {**SUMMARY, "foreground_mean": {}}, "foreground_mean has no 'Dice'"),
    ],
)
def test_nnunets_files_are_checked(kind: JsonKind, content: object, words: str | None, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(json.dumps(content))
    if words is None:
        kind.read(file)
        return
    with pytest.raises(JsonFileError, match=f"{file} is not {kind.name}: .*{words}"):
        kind.read(file)


@pytest.mark.parametrize(
    "kind", [v for v in vars(nnunet_files).values() if isinstance(v, JsonKind)], ids=lambda k: k.name
)
@pytest.mark.parametrize("cut", [0, 0.2, 0.5, 0.8, 0.99])
def test_half_of_any_file_is_unreadable(kind: JsonKind, cut: float, tmp_path: Path) -> None:
    whole = json.dumps(SUMMARY, indent=4)
    (tmp_path / "file.json").write_text(whole[: int(cut * len(whole))])
    assert not kind.is_readable(tmp_path / "file.json")


# messages between processes of ours, which no disk can damage, and a lock, of which any content will do
_MESSAGES = {"run.py", "workers/shared.py", "ledger/study_export.py", "common/folder_lock.py"}


def test_no_other_code_reads_json_files() -> None:
    readers = set()
    for package in (nnunetv2_slicemamba, trainers, search):
        root = Path(str(package.__file__)).parent
        for file in root.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in ("load", "loads") and _names_json(node.value):
                    readers.add(str(file.relative_to(root)))
                if isinstance(node, ast.Name) and node.id == "load_json":
                    readers.add(str(file.relative_to(root)))
    assert readers == {"common/json_reading.py", *_MESSAGES}


def _names_json(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "json"
