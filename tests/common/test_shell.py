"""Commands to copy do in a shell what they say, whatever is in their words."""

from __future__ import annotations

import subprocess

import pytest

from nnunetv2_slicemamba.common.shell import comment, shell_line

NASTY = (
    *("2d;touch owned", "0$(touch owned)", "`touch owned`", "it's", "a b", "a\nb", "-rf", "", "*", "~"),
    *("x\x1b[2J\\n'", "\\x1b"),
)


@pytest.mark.parametrize("word", NASTY)
def test_a_shell_reads_every_word_as_it_was(word: str) -> None:
    line = shell_line("printf", "%s|", word, 5)
    assert "\x1b" not in line
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout == f"{word}|5|"


def test_words_that_need_no_quotes_have_none() -> None:
    assert shell_line("nnUNetv2_train", 501, "2d", 0, "-p", "nnUNetPlans") == "nnUNetv2_train 501 2d 0 -p nnUNetPlans"


def test_a_comment_stays_on_its_line() -> None:
    assert comment("a\nrm -rf x\x1b") == "# a rm -rf x\\x1b"
