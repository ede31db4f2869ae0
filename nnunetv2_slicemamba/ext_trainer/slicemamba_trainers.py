"""Module that nnU-Net imports when nnUNet_extTrainer names this folder: every trainer of ours under its name."""

from nnunetv2_slicemamba.trainers import TRAINERS

globals().update(TRAINERS)
