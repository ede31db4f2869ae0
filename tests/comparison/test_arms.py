"""Arms are named in a list; every name means one thing, and a wrong one is told which there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.comparison.arms import parse_arms
from nnunetv2_slicemamba.comparison.scatter import _KINDS

KNOWN = (
    "neither searched, consensus, front:K, a thickness such as 2x4, 4@h, no-scan, no-block, cheapest, random:N, "
    "random:seed=S, random-at-budget:N nor a slicing file that exists"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("searched", [("searched", "searched", "searched")]),
        ("consensus", [("consensus", "consensus", "consensus")]),
        ("2x4", [("2x4", "fixed", "2x4")]),
        ("2x4x2", [("2x4x2", "fixed", "2x4x2")]),
        ("no-scan,no-block", [("no-scan", "fixed", "no-scan"), ("no-block", "fixed", "no-block")]),
        ("04@h,02x4", [("4@h", "fixed", "4@h"), ("2x4", "fixed", "2x4")]),
        ("4x4@h", [("4@h", "fixed", "4x4@h")]),
        ("front:01", [("front_1", "front", "front:1")]),
        ("4@h,4@d", [("4@h", "fixed", "4@h"), ("4@d", "fixed", "4@d")]),
        ("cheapest", [("cheapest", "fixed", "cheapest")]),
        ("front:12", [("front_12", "front", "front:12")]),
        ("random:2", [("random_0", "random", "random:0"), ("random_1", "random", "random:1")]),
        ("random:seed=7", [("random_7", "random", "random:7")]),
        (
            "random-at-budget:2",
            [(f"random-at-budget_{i}", "random-at-budget", f"random-at-budget:{i}") for i in (0, 1)],
        ),
        ("random-at-budget:seed=9", [("random-at-budget_9", "random-at-budget", "random-at-budget:9")]),
    ],
)
def test_every_name_stands_for_its_arms(text: str, expected: list[tuple[str, str, str]]) -> None:
    arms = parse_arms(text)
    assert [(arm.name, arm.kind, arm.value) for arm in arms] == expected
    assert {arm.kind for arm in arms} <= set(_KINDS), "rank draws it"
    assert all(arm.is_control == (arm.kind in ("fixed", "random", "random-at-budget")) for arm in arms)


def test_a_file_is_an_arm_under_its_own_name_or_another(tmp_path: Path) -> None:
    file = tmp_path / "my slicing.json"
    file.touch()
    arms = parse_arms(f"{file}, other={file}")
    assert [(arm.name, arm.kind, arm.value) for arm in arms] == [
        ("my_slicing", "file", str(file)),
        ("other", "file", str(file)),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("front", KNOWN),
        ("front:best", KNOWN),
        ("cheapest:2", KNOWN),
        ("no-scans", KNOWN),
        ("random_at_budget:2", KNOWN),
        ("no-scan:1", KNOWN),
        ("random-at-budget", "the arm 'random-at-budget' has no number; give random-at-budget:3 for the seeds 0, 1, 2"),
        ("random-at-budget:x", "the arm 'random-at-budget:x' has no number; .*, or random-at-budget:seed=7"),
        ("random-at-budget:101", "'random-at-budget:101' must stand for 1 to 100 slicings"),
        ("front:1,front:1", "'front_1' 2 times"),
        ("random:2,random:seed=1", "'random_1' 2 times"),
        ("4@h,04@h", "'4@h' 2 times"),
        ("4@h,4x4@h", "'4@h' 2 times"),
        ("2x4,2x04", "'2x4' 2 times"),
    ],
)
def test_a_wrong_name_is_refused_with_those_that_there_are(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_arms(text)
