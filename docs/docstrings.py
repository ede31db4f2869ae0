"""Docstrings as Markdown, for the reference: what they say of an argument becomes an entry of a list."""

from __future__ import annotations

import html
import re
from typing import Any

import griffe

NAME = r"(?!default\b)(?:[a-z_]\w*|[A-Z])"
# "low, high: what they are", at the beginning of a sentence
ENTRY = re.compile(rf"(?:^|(?<=[.;] ))({NAME}(?:, {NAME})*): ")
# sentences that belong to no argument
CLOSING = re.compile(r"(?<=\. )(?=(?:Returns|Raises|The other arguments|The following|After|Input and output)\b)")
CODE = re.compile(r"(`[^`]*`)")


class Docstrings(griffe.Extension):
    """Griffe extension that rewrites every docstring by `as_markdown`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The docstring with every `name: what it is` as an entry of a list, and no character that is markup by chance."""
    parts = [part if part.startswith(("- ", "    ")) else _with_entries(part) for part in docstring.split("\n\n")]
    return _escaped("\n\n".join(parts))


def _with_entries(paragraph: str) -> str:
    text = " ".join(paragraph.split())
    # text before the first entry, then in turn an entry's names and what they are
    lead, *rest = ENTRY.split(text)
    blocks = [lead.strip()] if lead.strip() else []
    for names, meaning in zip(rest[::2], rest[1::2], strict=True):
        own, *closing = CLOSING.split(meaning)
        entry = f"- {', '.join(f'`{name}`' for name in names.split(', '))}: {own.strip().rstrip(';')}"
        is_next = blocks and blocks[-1].startswith("- ")
        blocks = [*blocks[:-1], f"{blocks[-1]}\n{entry}"] if is_next else [*blocks, entry]
        if closing:
            blocks.append("".join(closing))
    return "\n\n".join(blocks)


def _escaped(text: str) -> str:
    pieces = CODE.split(text)
    return "".join(piece if i % 2 else re.sub(r"([*_])", r"\\\1", html.escape(piece)) for i, piece in enumerate(pieces))
