"""A duration is shown in the two largest units that count."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.common.durations import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.21, "4.2 s"),
        (59.96, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_two_units_are_shown(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
