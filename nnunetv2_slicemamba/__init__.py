"""SliceMamba and its architecture search as an extension of nnU-Net v2."""

from nnunetv2_slicemamba.common.version import __version__, require_nnunet

__all__ = ["__version__"]

require_nnunet()
