"""README is read in two minutes, holds no figure of its own, and its links lead somewhere, also on GitHub and PyPI."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.site_pages import DOCS, REPOSITORY, is_outside, target_of

README = REPOSITORY / "README.md"
TEXT = README.read_text(encoding="utf-8")
TEXTS = [README, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
UNITS = r"(?:%|GB|GiB|MB|ms|s|min|h|hours?|minutes|seconds|points)"


def test_it_is_read_in_two_minutes() -> None:
    assert len(TEXT.splitlines()) <= 200
    assert len(TEXT.split()) <= 2000


def test_its_make_commands_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shown = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"^ {4}.*$|`[^`]+`", TEXT, re.MULTILINE))))
    assert {"demo", "test", "docs"} <= shown <= targets


def test_its_figures_are_those_of_results_and_performance() -> None:
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("results.md", "performance.md"))
    section = TEXT.partition("## How good is it\n")[2].partition("\n## ")[0]
    figures = {*re.findall(r"\d+\.\d+", section), *re.findall(rf"(\d[\d.,]*) {UNITS}\b", TEXT)}
    assert len(figures) > 15
    assert [f for f in sorted(figures) if not re.search(rf"(?<![\d.]){re.escape(f)}(?!\.?\d)", pages)] == []


def test_times_and_gains_on_other_pages_are_those_of_results_and_performance_or_of_a_shown_output() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in DOCS.rglob("*.md")}
    shown = "\n".join(re.findall(r"^ {4}.*$", "\n".join(texts.values()), re.MULTILINE))
    shown += texts.pop("results.md") + texts.pop("performance.md")
    measured = r"(\d+(?:\.\d+)?) (?:ms|points|times as)\b|(\d+\.\d+) (?:s|min|MB|%)(?!\w)"
    for name, text in texts.items():
        prose = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
        for figure in filter(None, sum(re.findall(rf"(?<![\d.])(?:{measured})", prose), ())):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\.?\d)", shown), f"{name}: {figure}"


@pytest.mark.parametrize("file", TEXTS, ids=[str(file.relative_to(REPOSITORY)) for file in TEXTS])
def test_nothing_needs_mkdocs_to_be_read(file: Path) -> None:
    # requests to include a file, boxes, and lists of attributes would be shown as they are
    assert (
        re.findall(r"\{\{.*|^--8<--.*|^(?:!!!|\?\?\?) .*|\{: .*", file.read_text(encoding="utf-8"), re.MULTILINE) == []
    )


@pytest.mark.parametrize("file", TEXTS, ids=[str(file.relative_to(REPOSITORY)) for file in TEXTS])
def test_relative_links_images_and_anchors_exist(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for address in re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text):
        if is_outside(address):
            continue
        target, anchor = target_of(file, address)
        assert target.exists(), f"links to {address}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading_anchor(heading) for heading in headings}, f"links to {address}"


def heading_anchor(heading: str) -> str:
    """The anchor that forges give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_long_description_links_to_nothing_that_a_package_index_lacks() -> None:
    command = [sys.executable, "setup.py", "--quiet", "--long-description"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, encoding="utf-8")
    assert "## Install" in run.stdout
    addresses = re.findall(r"\]\(([^)\s]+)", run.stdout)
    assert addresses
    assert [address for address in addresses if not is_outside(address)] == []
