"""Weights to start from: import of published checkpoints, and pretraining on ImageNet."""

from nnunetv2_slicemamba.pretraining.published import published_state_dict

__all__ = ["published_state_dict"]
