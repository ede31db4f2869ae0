"""A job of a comparison in which nnUNetv2_train is the stand-in."""

from typing import Any

from nnunetv2_slicemamba.common import commands
from nnunetv2_slicemamba.pipeline import job
from tests import light_child


def run_stand_in_training(*arguments: Any) -> None:
    """run_job with the stand-in."""
    commands.ENTRY_POINTS["nnUNetv2_train"] = ("stand_in_train", "train")
    commands.run_process = light_child.run_process
    job.run_job(*arguments)
