"""A job of a comparison in which nnUNetv2_train is the stand-in."""

from typing import Any

from nnunetv2_slicemamba.common.commands import ENTRY_POINTS
from nnunetv2_slicemamba.pipeline import job


def run_stand_in_training(*arguments: Any) -> None:
    """run_job with the stand-in."""
    ENTRY_POINTS["nnUNetv2_train"] = ("stand_in_train", "train")
    job.run_job(*arguments)
