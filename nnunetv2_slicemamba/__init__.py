"""SliceMamba and its architecture search as an extension of nnU-Net v2."""

from nnunetv2_slicemamba.common.version import require_nnunet

__version__ = "0.1.0"

require_nnunet()
