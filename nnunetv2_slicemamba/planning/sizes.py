"""Sizes of the network, and the names of the planners and plans that follow from them; nothing slow is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths of one size of network.

    width: channels of the first S3 stage, which double per stage. stem: channels of a hybrid's convolutional stages,
    full resolution first: nnU-Net's 32, but no more than the first S3 stage.
    """

    width: int
    stem: tuple[int, int]


# a size is a row here: its planners, plans and options follow
SIZES = {
    "S": Size(width=24, stem=(16, 24)),
    "M": Size(width=48, stem=(32, 48)),
    "L": Size(width=96, stem=(32, 64)),
}
PAPER = "L"  # the paper's network, whose planners and plans have no letter


def planner_name_of(size: str, hybrid: bool = False) -> str:
    """Class name of the planner of a size."""
    return f"SliceMambaPlanner{_kind(size, hybrid)}"


def plans_name_of(size: str, hybrid: bool = False) -> str:
    """Name of a planner's plans unless another one is asked for."""
    return f"nnUNetSliceMamba{_kind(size, hybrid)}Plans"


def _kind(size: str, hybrid: bool) -> str:
    return ("Hybrid" if hybrid else "") + ("" if size == PAPER else size)
