"""Patches of the demo, small enough for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON


def patch_size(plans: Path, configuration: str) -> tuple[int, ...]:
    """Patch of a configuration in a plans file."""
    return tuple(PLANS_JSON.read(plans)["configurations"][configuration]["patch_size"])


def set_patch_size(plans: Path, configuration: str, wanted: Sequence[int]) -> tuple[int, ...]:
    """Sets a configuration's patch in a plans file, as nnU-Net's users do by hand; returns the patch it has planned.

    The planner fills the memory that it is given, which on a CPU takes hours; the smallest target that a GPU could keep
    still gives larger patches than minutes allow.
    """
    content = PLANS_JSON.read(plans)
    settings = content["configurations"][configuration]
    planned = tuple(settings["patch_size"])
    settings["patch_size"] = list(wanted)
    write_json(plans, content, indent=4)
    return planned
