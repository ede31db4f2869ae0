"""Options of the commands that do several things at once on one machine."""

from __future__ import annotations

from typing import Annotated

from nnunetv2_slicemamba.cli.options import whole

Gpus = Annotated[int | None, whole("--gpus", least=1, most=1024, help="Run several steps at once, on this many GPUs.")]
PerGpu = Annotated[int, whole("--per-gpu", least=1, most=64, help="Steps at once per GPU, with --gpus.")]
AtOnce = Annotated[
    int | None, whole("--at-once", least=1, most=1024, help="Run this many steps at once, without a GPU.")
]
