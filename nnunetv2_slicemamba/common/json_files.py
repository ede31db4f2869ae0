"""JSON files: values as JSON holds them, and files that are written whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.whole_file import replacing


def plain_json(value: Any) -> Any:
    """`value` as JSON gives it back: NumPy's types become Python's, NaN and infinity None, tuples lists.

    Raises ValueError for a value of another type, which it names.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise ValueError(
        f"JSON cannot hold {str(value)!r}, a {type(value).__name__}; give numbers, strings, lists and dicts of them"
    )


def write_json(path: str | Path, content: Any, indent: int = 2) -> None:
    """Writes `plain_json(content)` as UTF-8; a reader finds the old file or the whole new one."""
    text = json.dumps(plain_json(content), indent=indent, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested mappings that are no mappings themselves, as (keys joined by dots, value)."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
