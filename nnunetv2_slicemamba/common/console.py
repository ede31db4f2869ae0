"""The commands' console, which shows text as it is: no markup, no control characters, no broken lines."""

from __future__ import annotations

import os
import re
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

# Everything that a terminal acts on in place of showing it, but tabs and line ends: C0 and C1 controls (ESC among
# them), characters that turn the direction of text, and the halves of characters that stand for undecodable bytes.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# of tables in files: rich takes 80 columns there, and wraps cells
FILE_WIDTH = 400


def printable(text: str) -> str:
    """`text` with escapes such as \\x1b in place of the characters that a terminal acts on."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def styled(text: str, style: str = "") -> Text:
    """`text`, as it is and in one style, for a table's cell or a line of any Console."""
    return Text(printable(text), style)


def forget_unusable_width() -> None:
    """Removes COLUMNS from this process's environment where it holds no width: at 0 columns rich prints nothing."""
    given = os.environ.get("COLUMNS")
    if given is not None and not re.fullmatch("0*[1-9][0-9]{0,3}", given):
        del os.environ["COLUMNS"]


class PlainConsole(Console):
    """Console that prints strings as they are: paths and messages may hold brackets, which rich reads as markup.

    Strings are never wrapped, so that paths and commands can be copied; nor are the cells of a table in a file. For
    colours, print what `styled` gives.
    """

    def __init__(self, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        if all(isinstance(one, (str, Text)) for one in objects):
            options.setdefault("soft_wrap", True)
        if self.is_terminal or "COLUMNS" in os.environ or not any(isinstance(one, Table) for one in objects):
            super().print(*objects, **options)
            return
        width, self.width = self.width, FILE_WIDTH
        super().print(*objects, **options)
        self.width = width

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def status(self, status: Any, **options: Any) -> Status:
        return super().status(styled(status) if isinstance(status, str) else status, **options)
