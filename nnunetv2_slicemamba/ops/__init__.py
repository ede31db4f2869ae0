"""The scan operation: its orders, its backends and how one is chosen."""

from nnunetv2_slicemamba.ops.backends import available_backends
from nnunetv2_slicemamba.ops.orders import scan_orders
from nnunetv2_slicemamba.ops.slice_scan import slice_scan

__all__ = ["available_backends", "scan_orders", "slice_scan"]
