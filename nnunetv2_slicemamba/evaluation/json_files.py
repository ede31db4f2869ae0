"""JSON files that are strict and written whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.search.atomic import replacing


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON in one step: a file that is there is replaced whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain_json(content), indent=2, allow_nan=False), encoding="utf-8")


def plain_json(value: Any) -> Any:
    """The value with lists in place of tuples, text as keys, and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
