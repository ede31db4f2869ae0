"""The documentation, built once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.site_pages import REPOSITORY, Page


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """(folder of the site, the finished `mkdocs build --strict`)."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(["make", "typed"], cwd=REPOSITORY, check=True, capture_output=True)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    return folder, subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def pages(built: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[Path, Page]:
    """Every page of the site, by its file."""
    return {file: Page(file) for file in sorted(built[0].rglob("*.html"))}
