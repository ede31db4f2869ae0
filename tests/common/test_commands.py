"""The error of a command that failed: it has the message of the exception."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.common import commands
from nnunetv2_slicemamba.common.commands import CommandError, run_command
from nnunetv2_slicemamba.common.watch import Watch
from tests import light_child

ENDS = {
    "raised": "raise RuntimeError('fold_0 is in use by process 7: wait for that one.')",
    "chained": "\ntry:\n    raise KeyError('a')\nexcept KeyError as e:\n    raise OSError('the disk is full') from e",
    "silent": "assert False",
    "exit": "print('RuntimeError: was told of'); raise SystemExit(1)",
}
REASONS = {
    "raised": "failed with exit code 1: fold_0 is in use by process 7: wait for that one; what was",
    "chained": "failed with exit code 1: the disk is full; what was",
    "silent": "failed with exit code 1; what was",
    "exit": "failed with exit code 1; what was",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_exception_that_ended_a_command_is_told(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = ENDS[end].replace("\n", "\n    ")
    (tmp_path / "ending.py").write_text(f"def main():\n    {body}\n")
    monkeypatch.setitem(commands.ENTRY_POINTS, "ending", ("ending", "main"))
    monkeypatch.setattr(commands, "run_process", light_child.run_process)
    console = Console(file=io.StringIO())
    with pytest.raises(CommandError) as error:
        run_command(
            "ending",
            [],
            console,
            {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
            Watch(console),
        )
    assert REASONS[end] in str(error.value)
