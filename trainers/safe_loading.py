"""Trainings that run no code from the files that they start or go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.common.checkpoint_names import ALL
from nnunetv2_slicemamba.common.checkpoints import (
    FORCE_UNSAFE,
    load_safely_from_now_on,
    may_run_code,
    non_finite,
    read_training,
)
from nnunetv2_slicemamba.trainers.safe_cases import examined


class NonFiniteWeightsError(ValueError):
    """A network whose weights are NaN or infinite, where it should be trained or predict."""


class SafeLoading(nnUNetTrainer):
    """A mix-in: checkpoints, -pretrained_weights and cases are read as data; damage and weights with NaN are refused.

    nnU-Net unpickles all three. From a trainer's initialisation on, PyTorch reads weights only in this process. The one
    exception is made by the user, with PyTorch's TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1; the log then says so.
    """

    @property
    def dataset_class(self) -> Any:
        """nnU-Net's class of preprocessed data sets, None before it looked; its cases' pickles are examined."""
        return self._dataset_class

    @dataset_class.setter
    def dataset_class(self, found: Any) -> None:
        self._dataset_class = examined(found)

    def initialize(self) -> None:
        # nnU-Net reads -pretrained_weights right after this, and asks no method of the trainer about it
        load_safely_from_now_on()
        super().initialize()

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        if isinstance(filename_or_checkpoint, str):
            file = Path(filename_or_checkpoint)
            if may_run_code():
                self.print_to_log_file(f"{file} is unpickled and may run code, as {FORCE_UNSAFE} is set")
            else:
                load_safely_from_now_on()
                read_training(file, remedy_of(file))
                self.print_to_log_file(f"{file} is whole and was read as data: nothing in it was run")
        super().load_checkpoint(filename_or_checkpoint)

    def on_train_start(self) -> None:
        if self.was_initialized:
            self.require_finite_weights("the file of -pretrained_weights may hold them; start from another one")
        super().on_train_start()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.require_finite_weights("continue the training from another checkpoint (--c)")
        super().perform_actual_validation(save_probabilities)

    def require_finite_weights(self, remedy: str) -> None:
        """Raises NonFiniteWeightsError if a weight is NaN or infinite."""
        if problem := non_finite(self.network.state_dict()):
            raise NonFiniteWeightsError(f"the network of {self.output_folder} cannot be used: {problem}; {remedy}")


def remedy_of(file: Path) -> str:
    """What to do about a fold's checkpoint that cannot be used: another one of the fold, or a new training."""
    others = [name for name in ALL if name != file.name and (file.parent / name).is_file()]
    if others:
        return f"move it away, and the training goes on from {others[0]}"
    return "restore it, or move it away and train the fold anew"
