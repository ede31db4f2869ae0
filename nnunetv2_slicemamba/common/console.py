"""The commands' console, which shows text as it is: no markup, no control characters, no broken lines."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

# Everything that a terminal acts on in place of showing it, but tabs and line ends: C0 and C1 controls (ESC among
# them), characters that turn the direction of text, and the halves of characters that stand for undecodable bytes.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with escapes such as \\x1b in place of the characters that a terminal acts on."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def styled(text: str, style: str = "") -> Text:
    """`text`, as it is and in one style, for a table's cell or a line of any Console."""
    return Text(printable(text), style)


class PlainConsole(Console):
    """Console that prints strings as they are: paths and messages may hold brackets, which rich reads as markup.

    Strings are never wrapped, so that paths and commands can be copied. For colours, print what `styled` gives.
    """

    def __init__(self, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        if all(isinstance(one, (str, Text)) for one in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def status(self, status: Any, **options: Any) -> Status:
        return super().status(styled(status) if isinstance(status, str) else status, **options)
