"""Numbers of things in words."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    return f"{number} {nouns(number, noun)}"


def all_of(number: int, noun: str) -> str:
    """`the one block`, `both blocks`, `all 7 blocks`."""
    few = {1: "the one", 2: "both"}
    return f"{few.get(number, f'all {number}')} {nouns(number, noun)}"


def nouns(number: int, noun: str) -> str:
    """A noun as it follows a number: case, classes, epochs."""
    if number == 1:
        return noun
    hisses = noun.endswith(("s", "ch")) and not noun.endswith("epoch")
    return f"{noun}{'es' if hisses else 's'}"
