"""State of a training, with which it goes on after a kill as if there had been none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunetv2_slicemamba.common.checkpoint_names import BEST, LATEST
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.whole_file import replacing


@dataclass
class TrainingState:
    """Everything that changes in a training. Random numbers are functions of the step, and need not be kept.

    step: steps done. validated: epochs validated. best: figures of the best epoch so far, {} before the first.
    """

    network: nn.Module
    average: Any
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    validated: int = 0
    best: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Writes checkpoint_latest.pth, atomically."""
        content = {
            "model": self.network.state_dict(),
            "ema": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "validated": self.validated,
            "best": self.best,
            "identity": dict(identity),
        }
        with replacing(folder / LATEST) as temporary:
            torch.save(content, temporary)

    def save_best(self, folder: Path, network: nn.Module) -> None:
        """Writes checkpoint_best.pth: the weights of the best epoch and its figures."""
        with replacing(folder / BEST) as temporary:
            torch.save({"model": network.state_dict(), "best": self.best}, temporary)

    def restore(self, folder: Path, identity: Mapping[str, Any], device: torch.device) -> bool:
        """Goes on from checkpoint_latest.pth; False if there is none.

        Raises InputError, listing what differs, if it is of another training.
        """
        file = folder / LATEST
        if not file.is_file():
            return False
        content = torch.load(file, map_location=device, weights_only=True)
        then = content["identity"]
        different = [key for key in identity if then.get(key) != identity[key]]
        if different:
            listed = "".join(f"\n  {key}: {then.get(key)!r} there, {identity[key]!r} now" for key in different)
            raise InputError(
                f"{file} is of another training:{listed}\nGo on with its settings, or give another "
                "--output, or --discard"
            )
        self.network.load_state_dict(content["model"])
        self.average.module.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.validated, self.best = content["step"], content["validated"], content["best"]
        return True
