"""Runs one pretraining; as a program it can be killed, or started by torchrun.

python pretraining_run.py REQUEST.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.pretraining.pretrain import Pretrained, PretrainRequest, pretrain
from nnunetv2_slicemamba.pretraining.recipe import Recipe

# small images, two epochs, otherwise as published
RECIPE = {"epochs": 2, "warmup_epochs": 1, "batch_size": 4, "image_size": 32}
WHERE = ("901", "2d", "all", "nnUNetSliceMambaSPlans")


def run(images: Path | str, target: Path | str, recipe: dict[str, Any] | None = None, **changes: Any) -> Pretrained:
    settings = {"slicing": "random:1", "device": "cpu", "workers": 0, "look_every": 1, "save_seconds": 0.0, **changes}
    request = PretrainRequest(Path(images), Path(target), Recipe(**{**RECIPE, **(recipe or {})}), **settings)
    # tests run beside each other: one thread each
    with mock.patch("os.cpu_count", return_value=1):
        return pretrain(select(*WHERE), request, Console(quiet=True))


if __name__ == "__main__":
    run(**json.loads(Path(sys.argv[1]).read_text()))
