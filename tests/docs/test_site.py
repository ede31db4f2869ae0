"""The documentation builds without a warning, its links lead somewhere, and it loads nothing from the network."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.site_pages import DOCS, Page, is_outside, target_of

Built = tuple[Path, subprocess.CompletedProcess[str]]
# built once for the tests of one worker
pytestmark = pytest.mark.xdist_group("docs")
SOURCES = sorted(DOCS.rglob("*.md"))


def test_the_documentation_builds_strictly(built: Built) -> None:
    folder, run = built
    assert run.returncode == 0, run.stderr
    assert "WARNING  -" not in run.stderr
    assert (folder / "index.html").is_file()


def test_every_page_is_built(pages: dict[Path, Page], built: Built) -> None:
    made = {file.relative_to(built[0]).with_suffix("") for file in pages}
    assert {file.relative_to(DOCS).with_suffix("") for file in DOCS.rglob("*.md")} <= made


def test_internal_links_and_anchors_exist(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        # the page for addresses that do not exist is served from anywhere, so its links are absolute
        for address in page.links if file.name != "404.html" else ():
            if is_outside(address):
                continue
            target, anchor = target_of(file, address)
            if not target.is_file():
                broken.append(f"{file.name}: {address}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{file.name}: {address} (no such anchor)")
    assert broken == []


def test_pages_load_nothing_from_the_network(pages: dict[Path, Page], built: Built) -> None:
    for file, page in pages.items():
        assert page.loaded, f"{file.name} loads not even its style sheet: is it read rightly?"
        for address in page.loaded:
            assert not is_outside(address), f"{file.name} loads {address}"
            if file.name != "404.html":
                assert target_of(file, address)[0].is_file(), f"{file.name} misses {address}"
        assert not [style for style in page.styles if "http" in style or "url(//" in style], file.name
    for sheet in built[0].rglob("*.css"):
        # an address in a style sheet is fetched; a namespace in an inlined picture is not
        loaded = re.findall(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)", sheet.read_text(encoding="utf-8"))
        outside = [a or b for a, b in loaded if is_outside(a or b) and not (a or b).startswith("data:")]
        assert outside == [], sheet.name


@pytest.mark.parametrize("file", SOURCES, ids=[str(file.relative_to(DOCS)) for file in SOURCES])
def test_no_path_of_the_machine_that_wrote_it(file: Path) -> None:
    found = re.findall(r"(?<![\w.])/(?:work|tmp|root|opt)\b[^\s)`]*", file.read_text(encoding="utf-8"))
    assert found == []


def test_images_of_the_pages_are_shipped() -> None:
    # pictures of datasets that must not be passed on have no place here
    shipped = {
        "augmentation.png",
        "demo_2d.png",
        "search_page.png",
        "search_rank.png",
        "report.png",
        "results_differences.png",
        "results_hours.png",
    }
    assert {file.name for file in DOCS.rglob("*.png")} == shipped
