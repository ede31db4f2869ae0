"""A final trainer of seconds, which nnU-Net finds through nnUNet_extTrainer."""

from nnunetv2_slicemamba.trainers import SliceMambaTrainer


class ShortSliceMambaTrainer(SliceMambaTrainer):
    """Four epochs of two iterations, each with a checkpoint."""

    epochs = 4
    iterations_per_epoch = 2
    validation_iterations = 1

    def on_train_start(self) -> None:
        super().on_train_start()
        self.save_every = 1
