"""The reference shows every public function and class, and their docstrings as they are meant."""

from __future__ import annotations

import importlib
import inspect
import re
from html import unescape
from pathlib import Path

import pytest

from tests.docs.site_pages import Page

pytestmark = pytest.mark.xdist_group("docs")
ROOMS = ("ops", "nets", "search", "evaluation")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_and_class_is_shown(room: str, pages: dict[Path, Page]) -> None:
    (page,) = (page for file, page in pages.items() if file.parts[-2:] == ("reference", f"{room}.html"))
    shown = {anchor.rpartition(".")[2] for anchor in page.anchors if anchor.startswith(f"nnunetv2_slicemamba.{room}.")}
    module = importlib.import_module(f"nnunetv2_slicemamba.{room}")
    public = {name for name in module.__all__ if callable(getattr(module, name)) and not is_alias(module, name)}
    assert public
    assert public - shown == set()


def is_alias(module: object, name: str) -> bool:
    """Whether a name stands for a type such as tuple[int, ...]."""
    value = getattr(module, name)
    return not (inspect.isclass(value) or inspect.isfunction(value)) or hasattr(value, "__origin__")


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("nets", "<li><code>d_state</code>: states N per channel."),  # an argument is an entry of a list
        ("nets", "<p>Input and output: (B, *spatial, C), channels last"),  # what follows is none, and no star is lost
        ("ops", "h_t = exp(delta_t A) h_(t-1) + delta_t B_t x_t"),
        ("search", "unless 0 < fraction < 1, seed is at least 0"),
        ("evaluation", "count nowhere; default: dataset.json's."),
    ],
)
def test_docstrings_are_shown_as_they_are_meant(room: str, text: str, pages: dict[Path, Page]) -> None:
    (file,) = (file for file in pages if file.parts[-2:] == ("reference", f"{room}.html"))
    source = unescape(file.read_text(encoding="utf-8"))
    assert text in re.sub(r"\s+", " ", source)
