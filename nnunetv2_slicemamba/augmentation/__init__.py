"""nnU-Net's augmentation for whole batches on the device that trains, and batches in an order that can be repeated."""

from nnunetv2_slicemamba.augmentation.batch import Batch
from nnunetv2_slicemamba.augmentation.policy import Policy
from nnunetv2_slicemamba.augmentation.translation import translate
from nnunetv2_slicemamba.augmentation.unknown import UnknownTransformError

__all__ = ["Batch", "Policy", "UnknownTransformError", "translate"]
