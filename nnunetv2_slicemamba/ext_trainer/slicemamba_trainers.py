"""What nnU-Net imports when nnUNet_extTrainer names this folder: every SliceMamba trainer under its name."""

from nnunetv2_slicemamba.trainers import TRAINERS

globals().update(TRAINERS)
