"""The registry of converters: every module of the folder `converters`, in the order in which lists show them."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from nnunetv2_slicemamba.datasets import converters
from nnunetv2_slicemamba.datasets.converter import Converter


@functools.cache
def all_converters() -> tuple[Converter, ...]:
    """The `CONVERTER` of every module. Imports nothing slow, as the command's help needs it.

    Raises ImportError where a module has none, or two have the same key.
    """
    found: dict[str, Converter] = {}
    for module in pkgutil.iter_modules(converters.__path__, f"{converters.__name__}."):
        converter = getattr(importlib.import_module(module.name), "CONVERTER", None)
        if not isinstance(converter, Converter):
            raise ImportError(f"{module.name} has no CONVERTER; every module beside it defines one")
        if converter.key in found:
            raise ImportError(f"{module.name} has the key {converter.key!r}, which another converter has, too")
        found[converter.key] = converter
    return tuple(sorted(found.values(), key=lambda converter: (converter.place, converter.key)))


def converter_of(key: str) -> Converter:
    """The converter with a key; ValueError if there is none."""
    for converter in all_converters():
        if converter.key == key:
            return converter
    raise ValueError(f"there is no dataset {key!r}; give one of {', '.join(one.key for one in all_converters())}")
