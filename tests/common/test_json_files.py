"""JSON files can be read by any reader of JSON, and are whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_slicemamba.common.json_files import leaves, plain_json, write_json


def test_values_become_what_json_gives_back() -> None:
    value = {
        1: (np.float32(0.5), np.int64(3), True, None),
        "rows": np.eye(2, dtype=int),
        "name": "\N{GREEK SMALL LETTER TAU}",
    }
    plain = plain_json(value)
    assert plain == {"1": [0.5, 3, True, None], "rows": [[1, 0], [0, 1]], "name": "\N{GREEK SMALL LETTER TAU}"}
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), np.array([np.nan])])
def test_undefined_numbers_are_null(value: object) -> None:
    assert plain_json([value]) in ([None], [[None]])


@pytest.mark.parametrize("value", [Path("file"), {1, 2}, 1j])
def test_another_type_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match=f"a {type(value).__name__}; give numbers"):
        plain_json({"entry": value})


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    write_json(file, {"dice": math.nan})
    assert json.loads(file.read_text(encoding="utf-8")) == {"dice": None}
    with pytest.raises(ValueError, match="JSON cannot hold"):
        write_json(file, {"dice": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"dice": None}
    assert list(file.parent.iterdir()) == [file]


def test_nested_settings_have_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1}, "d": [2]}, "e": None, "f": {}}
    assert dict(leaves(nested)) == {"a.b.c": 1, "a.d": [2], "e": None}
