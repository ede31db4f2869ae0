"""Settings of a residual network: nnU-Net's U-Net with S3 blocks behind the convolutions of some stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from nnunetv2_slicemamba.nets.checks import check_positive
from nnunetv2_slicemamba.nets.resolutions import reductions
from nnunetv2_slicemamba.nets.settings import SharedSettings


@dataclass(frozen=True)
class ResidualSettings(SharedSettings):
    """Arguments of SliceMambaResidualUNet and its supernet: those of SharedSettings and the following.

    features_per_stage, strides, kernel_sizes, n_conv_per_stage: as nnU-Net plans them for its PlainConvUNet; strides[0]
    is the first convolution's and is all ones in nnU-Net's plans. norm_eps: of InstanceNorm. negative_slope: of
    LeakyReLU. n_blocks_per_stage: entries may be 0. n_blocks_per_stage_decoder, n_conv_per_stage_decoder: n_stages - 1
    entries, lowest resolution first, since nnU-Net's decoder has no stage at the bottleneck.
    """

    drop_path_rate: float = 0.0
    kernel_sizes: tuple[tuple[int, ...], ...] = field(kw_only=True)
    n_conv_per_stage: tuple[int, ...] = field(kw_only=True)
    n_conv_per_stage_decoder: tuple[int, ...] = field(kw_only=True)
    norm_eps: float = field(default=1e-5, kw_only=True)
    negative_slope: float = field(default=1e-2, kw_only=True)

    least_blocks: ClassVar[int] = 0

    @property
    def n_decoder_stages(self) -> int:
        return self.n_stages - 1

    @property
    def output_scales(self) -> list[list[float]]:
        return [[1 / step for step in reduction] for reduction in reductions(self.strides)[:-1]]

    @property
    def block_options(self) -> dict[str, Any]:
        return super().block_options | {"starts_at_zero": True}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_stages < 2:
            raise ValueError(f"n_stages is {self.n_stages}; a U-Net has 2 resolutions or more: plan larger patches")
        self.check_entries("kernel_sizes", "n_conv_per_stage")
        self.check_entries("n_conv_per_stage_decoder", decoder=True)
        check_positive("n_conv_per_stage", self.n_conv_per_stage)
        check_positive("n_conv_per_stage_decoder", self.n_conv_per_stage_decoder)
        kernels = [list(kernel) for kernel in self.kernel_sizes]
        if any(len(kernel) != self.n_dims or any(size < 1 or size % 2 == 0 for size in kernel) for kernel in kernels):
            raise ValueError(
                f"kernel_sizes {kernels} must be odd, {self.n_dims} per stage as the strides have axes: give 1 or 3"
            )
        if set(self.strides[0]) != {1}:
            raise ValueError(
                f"strides[0] is {list(self.strides[0])}; the first stage is at full resolution: give ones, as nnU-Net"
            )
        if not self.norm_eps > 0:
            raise ValueError(f"norm_eps is {self.norm_eps}, it must be above 0: give 1e-5")
