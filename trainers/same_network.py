"""Trainings that go on with the network that they began with, and beside folds of the same network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.common.checkpoint_names import ALL
from nnunetv2_slicemamba.common.checkpoints import WEIGHTS, CheckpointError, read_training
from nnunetv2_slicemamba.planning.trained import other_network
from nnunetv2_slicemamba.trainers.finished_epoch import bare


class OtherNetworkError(ValueError):
    """A checkpoint of a network that the plans do not hold, because other plans took their place."""


class SameNetwork(nnUNetTrainer):
    """A mix-in: no training goes on from a checkpoint of another network, nor begins beside folds of another one.

    nnU-Net writes the plans beside the folds when a training begins: folds of another network could then be neither
    continued nor validated, and none could predict.
    """

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        if isinstance(filename_or_checkpoint, str):
            if not self.was_initialized:
                self.initialize()
            self._require_same_network(Path(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        own = Path(str(self.output_folder))
        for fold in sorted(own.parent.glob("fold_*")):
            file = next((fold / name for name in ALL if (fold / name).is_file()), None)
            if fold != own and file is not None:
                self._require_same_network(file)
        super().on_train_start()

    def _require_same_network(self, file: Path) -> None:
        """Raises OtherNetworkError unless a checkpoint's weights fit the network; damage is left to its own check."""
        try:
            content = read_training(file, "", tensors=False)
        except CheckpointError:
            return
        network = bare(self.network, self.is_ddp).state_dict()
        there, here = shapes_of(content[WEIGHTS]), shapes_of(network)
        if there == here:
            return
        plans, configuration = self.plans_manager.plans, self.configuration_name
        trained_with = content.get("init_args", {}).get("plans", plans)
        name = next(name for name in {**here, **there} if there.get(name) != here.get(name))
        differs, remedy = other_network(trained_with, plans, configuration)
        raise OtherNetworkError(
            f"{file} is of another network than the plans {self.plans_manager.plans_name} hold now: "
            f"{differs or f'{name} {here.get(name)} in place of {there.get(name)}'}. {remedy}, or move the folder "
            f"{file.parent.parent} away to train anew"
        )


def shapes_of(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of a state dict by name; names as without the wrapper of several GPUs."""
    return {name.removeprefix("module."): tuple(value.shape) for name, value in weights.items()}
