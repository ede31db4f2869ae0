"""The page about the inside names files that exist, each in the room where the page says that it lies."""

from __future__ import annotations

import re

from tests.docs.site_pages import DOCS, REPOSITORY

PAGE = DOCS / "how" / "inside.md"
PACKAGE = REPOSITORY / "nnunetv2_slicemamba"


def test_every_file_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_0-9]+\.(?:py|cu))`", PAGE.read_text(encoding="utf-8"))
    assert len(set(named)) > 40
    known = {file for root in (PACKAGE, REPOSITORY / "search", REPOSITORY / "trainers") for file in root.rglob("*.*")}
    known_names = {file.name for file in known}
    for name in named:
        if "/" in name:
            relative = [PACKAGE / name, REPOSITORY / name, REPOSITORY / "search" / name]
            assert any(file.is_file() for file in relative), name
        else:
            # of the folder that the sentence is about
            assert name in known_names, name
