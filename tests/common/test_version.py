"""The version and nnU-Net's range stand in one file, which setup.py and the package read."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import nnunetv2_slicemamba
from nnunetv2_slicemamba.common import version

REPOSITORY = Path(__file__).resolve().parents[2]


def test_setup_takes_version_and_range_from_the_file_the_package_reads(monkeypatch) -> None:
    given = {}
    monkeypatch.setattr("setuptools.setup", lambda **settings: given.update(settings))
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    assert given["version"] == version.__version__ == nnunetv2_slicemamba.__version__
    assert [text for text in given["install_requires"] if text.startswith("nnunetv2")] == [version.NNUNET_REQUIREMENT]


def test_no_other_file_of_the_code_names_the_range_or_the_version() -> None:
    named = re.compile(rf"nnunetv2\s*>=|{re.escape(version.__version__)}")
    sources = [REPOSITORY / "setup.py"]
    for folder in ("nnunetv2_slicemamba", "search", "trainers"):
        sources += (REPOSITORY / folder).rglob("*.py")
    found = {file.name for file in sources if named.search(file.read_text(encoding="utf-8"))}
    assert found == {"version.py"}
