"""A damaged line of a file costs that line, and is told once."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.json_lines import read_json_lines

SHAPE = {"n": int}
BAD = {
    "half": b'{"n": 4',
    "not UTF-8": b'{"n": 4, "\xe9": 1}',
    "zeros": b"\0" * 700,
    "deep": b"[" * 100_000,
    "huge": b'{"n": 1' + b"0" * 5000 + b"}",
    "wrong shape": b'{"n": "4"}',
    "a number": b"4",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_damaged_line_is_left_out_with_one_warning(bad: bytes, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n".join([b'{"n": 1}', bad, b"", b'{"n": 2}', bad]))
    with pytest.warns(UserWarning, match="left out") as told:
        assert read_json_lines(file, SHAPE, lambda entry: entry["n"]) == [1, 2]
    assert [str(one.message) for one in told] == [f"what cannot be read is left out: {file}, line 2; {file}, line 5"]


def test_what_is_refused_is_left_out_too(tmp_path: Path) -> None:
    def positive(entry: dict[str, int]) -> int:
        if entry["n"] < 0:
            raise ValueError("negative")
        return entry["n"]

    file = tmp_path / "lines.jsonl"
    file.write_text('{"n": -1}\n{"n": 1}\n')
    with pytest.warns(UserWarning, match=f"{file}, line 1$"):
        assert read_json_lines(file, SHAPE, positive) == [1]


def test_whole_and_missing_files_are_read_without_a_word(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"n": 1, "more": []}\n\n{"n": 2}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [entry["n"] for entry in read_json_lines(file, SHAPE)] == [1, 2]
        assert read_json_lines(tmp_path / "none.jsonl", SHAPE) == []
