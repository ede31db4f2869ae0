"""Weights from elsewhere: import of published checkpoints."""

from nnunetv2_slicemamba.pretraining.published import published_state_dict

__all__ = ["published_state_dict"]
