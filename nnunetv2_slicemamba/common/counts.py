"""Numbers of things in words."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `2 classes`."""
    return f"{number} {nouns(number, noun)}"


def all_of(number: int, noun: str) -> str:
    """`the one block`, `all 7 blocks`."""
    return f"the one {noun}" if number == 1 else f"all {count(number, noun)}"


def nouns(number: int, noun: str) -> str:
    """A noun as it follows a number: case, classes, epochs."""
    if number == 1:
        return noun
    hisses = noun.endswith(("s", "ch")) and not noun.endswith("epoch")
    return f"{noun}{'es' if hisses else 's'}"
