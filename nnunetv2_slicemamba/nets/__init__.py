"""Networks: BSS and S3 blocks, U-shaped networks of them, and the supernets of their slicings."""

from nnunetv2_slicemamba.nets.bss import BSS
from nnunetv2_slicemamba.nets.path_supernet import Supernet
from nnunetv2_slicemamba.nets.residual import SliceMambaResidualSupernet, SliceMambaResidualUNet
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.nets.supernet import SliceMambaSupernet
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet

__all__ = [
    "BSS",
    "S3Block",
    "SliceMambaResidualSupernet",
    "SliceMambaResidualUNet",
    "SliceMambaSupernet",
    "SliceMambaUNet",
    "SlicedNetwork",
    "Supernet",
]
