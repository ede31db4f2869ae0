"""The shape that a JSON value must have, written down as Python values.

A shape is one of:

- `str`, `int`, `float`, `bool`, `dict`, `list`, None: a value of this kind; whole numbers are numbers (`float`) too
- `[shape]`: a list of such values
- `{"key": shape, "other?": shape}`: an object with these entries, those with a question mark may be missing; further
  entries may be there
- `{str: shape}`: an object whose entries all have this shape
- `(shape, shape)`: either of them
- `Any`: anything
"""

from __future__ import annotations

from typing import Any, TypeAlias

Shape: TypeAlias = Any

_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    None: "null",
}
_SHOWN = 60  # characters of a value in a message


def mismatch(value: Any, shape: Shape, place: str = "") -> str | None:
    """The first thing about `value` that is not as `shape` says, in words with its place; None if all is.

    place: of the value in its file, for the words: "configurations.2d".
    """
    if shape is Any:
        return None
    if isinstance(shape, tuple):
        return _mismatch_of_all(value, shape, place)
    if not _is_of_kind(value, shape):
        return f"{place or 'its content'} is {_short(value)}, it must be {_in_words(shape)}"
    if isinstance(shape, list):
        return _first(mismatch(item, shape[0], f"{place}[{i}]") for i, item in enumerate(value))
    if not isinstance(shape, dict):
        return None
    if str in shape:
        return _first(mismatch(item, shape[str], _below(place, key)) for key, item in value.items())
    missing = [key for key in shape if not key.endswith("?") and key not in value]
    if missing:
        return f"{place or 'it'} has no {' and no '.join(map(repr, missing))}"
    return _first(
        mismatch(value[name], wanted, _below(place, name))
        for key, wanted in shape.items()
        for name in [key.removesuffix("?")]
        if name in value
    )


def _mismatch_of_all(value: Any, shapes: tuple[Shape, ...], place: str) -> str | None:
    found = [mismatch(value, shape, place) for shape in shapes]
    if None in found:
        return None
    # the one that is meant says it best
    meant = [words for shape, words in zip(shapes, found, strict=True) if _is_of_kind(value, shape)]
    return meant[0] if meant else f"{place or 'its content'} is {_short(value)}, it must be {_in_words(shapes)}"


def _is_of_kind(value: Any, shape: Shape) -> bool:
    kind = type(shape) if isinstance(shape, (dict, list)) else shape
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _in_words(shape: Shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(map(_in_words, shape))
    return _WORDS[type(shape) if isinstance(shape, (dict, list)) else shape]


def _first(found: Any) -> str | None:
    return next((words for words in found if words is not None), None)


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{_WORDS[type(value)]} of {len(value)}"
    text = "null" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
