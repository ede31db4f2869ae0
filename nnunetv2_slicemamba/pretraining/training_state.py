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
from nnunetv2_slicemamba.common.safe_reading import read_checkpoint
from nnunetv2_slicemamba.common.whole_file import replacing

_ENTRIES = ("model", "ema", "optimizer", "scaler", "step", "validated", "best", "identity")


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

        Raises InputError if it cannot be read, or, listing what differs, if it is of another training.
        """
        file = folder / LATEST
        if not file.is_file():
            return False
        remedy = "give --discard to begin anew, or another --output"
        content = read_checkpoint(
            file, remedy, f"This package writes no such thing. Find out who did; {remedy}", device
        )
        missing = [key for key in _ENTRIES if not isinstance(content, Mapping) or key not in content]
        if missing or not isinstance(content["identity"], Mapping):
            listed = ", ".join(missing or ["identity"])
            raise InputError(f"{file} is no state of a pretraining: it has no {listed}; {remedy}")
        then = content["identity"]
        different = [key for key in identity if then.get(key) != identity[key]]
        if different:
            listed = "".join(f"\n  {key}: {then.get(key)!r} there, {identity[key]!r} now" for key in different)
            raise InputError(
                f"{file} is of another training:{listed}\nGo on with its settings, or give another "
                "--output, or --discard"
            )
        try:
            self.network.load_state_dict(content["model"])
            self.average.module.load_state_dict(content["ema"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
        except Exception as error:  # whatever PyTorch raises for entries of another shape or kind
            raise InputError(f"{file} does not fit this training ({error}); {remedy}") from error
        self.step, self.validated, self.best = content["step"], content["validated"], content["best"]
        return True
