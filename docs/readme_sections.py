"""A hook of MkDocs: `{{ README: HEADING }}` in a page becomes that section of README.md, so that it is kept once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
REQUEST = re.compile(r"^\{\{ README: (.+?) \}\}$", re.MULTILINE)


def section(text: str, heading: str) -> str:
    """Text below `## HEADING` up to the next heading of that level; KeyError where there is no such heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading].strip("\n")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return REQUEST.sub(lambda found: section(README.read_text(encoding="utf-8"), found[1]), markdown)
