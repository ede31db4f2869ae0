"""SliceMamba and its architecture search as an extension of nnU-Net v2."""

__version__ = "0.1.0"
