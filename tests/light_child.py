"""`nnunetv2_slicemamba.common.child` for stand-ins of nnU-Net's commands: they load no checkpoint, so PyTorch, whose
loading the child makes safe, is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2_slicemamba.common import checkpoints, child, commands

_run_process = commands.run_process


def run_process(call: Sequence[str], *rest: Any) -> tuple[int, str, int | None]:
    """commands.run_process with this module in place of the child."""
    return _run_process([__name__ if word == child.__name__ else word for word in call], *rest)


if __name__ == "__main__":
    checkpoints.load_safely_from_now_on = lambda: None
    child.main()
