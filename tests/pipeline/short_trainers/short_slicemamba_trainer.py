"""A final trainer of seconds, which nnU-Net finds through nnUNet_extTrainer."""

import json
from pathlib import Path

from nnunetv2_slicemamba.trainers import SliceMambaTrainer


class ShortSliceMambaTrainer(SliceMambaTrainer):
    """Four epochs of two iterations, each with a checkpoint, and a summary without validation.

    nnU-Net validates in processes that import PyTorch anew, and draws its progress, which take longer than all else.
    """

    epochs = 4
    iterations_per_epoch = 2
    validation_iterations = 1

    def on_train_start(self) -> None:
        super().on_train_start()
        self.save_every = 1
        self.logger.plot_progress_png = lambda output_folder: None

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        summary = {"metric_per_case": [], "mean": {}, "foreground_mean": {"Dice": 0.5}}
        folder = Path(self.output_folder) / "validation"
        folder.mkdir(exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(summary))
