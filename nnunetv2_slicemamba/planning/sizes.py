"""Sizes of the network, and the names of the planners and plans that follow from them; nothing slow is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths of one size of network.

    width: channels of the first S3 stage, which double per stage. stem: channels of a hybrid's convolutional stages,
    full resolution first: nnU-Net's 32, but no more than the first S3 stage. residual: channels of a residual network
    at full resolution, nnU-Net's in size L, of which the greatest widths are the same part as these of nnU-Net's.
    """

    width: int
    stem: tuple[int, int]
    residual: int


# a size is a row here: its planners, plans and options follow
SIZES = {
    "S": Size(width=24, stem=(16, 24), residual=16),
    "M": Size(width=48, stem=(32, 48), residual=24),
    "L": Size(width=96, stem=(32, 64), residual=32),
}
PAPER = "L"  # the paper's network, whose planners and plans have no letter


# the paper's, the same with convolutional stages around it, and nnU-Net's U-Net with S3 blocks added
NETWORKS = ("paper", "hybrid", "residual")
RECOMMENDED = "residual"  # planned unless another one is asked for
BLOCKS_FROM_STRIDE = 4  # of a residual network: the least stride of stages with S3 blocks, see planning.residual
GPU_MEMORY = 8.0  # GB to plan for unless another number is given


def check_size_and_network(size: str, network: str) -> None:
    """Raises ValueError unless `size` is in SIZES and `network` in NETWORKS."""
    for what, value, known in (("network", network, NETWORKS), ("size", size, SIZES)):
        if value not in known:
            raise ValueError(f"{what} {value!r} does not exist; give one of {', '.join(known)}")


def planner_name_of(size: str, network: str = "paper") -> str:
    """Class name of the planner of a size and a network of NETWORKS."""
    return f"SliceMambaPlanner{_kind(size, network)}"


def plans_name_of(size: str, network: str = "paper") -> str:
    """Name of a planner's plans unless another one is asked for."""
    return f"nnUNetSliceMamba{_kind(size, network)}Plans"


def _kind(size: str, network: str) -> str:
    return ("" if network == "paper" else network.capitalize()) + ("" if size == PAPER else size)
