"""Commands as text that can be pasted into a shell."""

from __future__ import annotations

import shlex

from nnunetv2_slicemamba.common.console import printable


def quoted(word: object) -> str:
    """A word of a command, quoted where a shell would read it otherwise; control characters as in $'\\x1b'."""
    text = str(word)
    if printable(text) == text:
        return shlex.quote(text)
    # the backslash of an escape counts only within $'...'
    return "$'" + printable(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def comment(text: str) -> str:
    """`text` on one line, which a shell passes over."""
    return f"# {' '.join(printable(text).split())}"


def shell_line(*words: object) -> str:
    """A command, word by word, for people to copy."""
    return " ".join(map(quoted, words))
