"""The `slicemamba` command."""

from nnunetv2_slicemamba.cli.main import main

__all__ = ["main"]
