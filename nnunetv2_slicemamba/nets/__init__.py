"""Networks: BSS and S3 blocks, the U-shaped network, and the supernet of its slicings."""

from nnunetv2_slicemamba.nets.bss import BSS
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.supernet import SliceMambaSupernet
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet

__all__ = ["BSS", "S3Block", "SliceMambaSupernet", "SliceMambaUNet"]
