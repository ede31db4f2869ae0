"""SliceMambaResidualUNet, nnU-Net's U-Net with S3 blocks as residual additions, and the supernet of its slicings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2_slicemamba.nets.path_supernet import Supernet
from nnunetv2_slicemamba.nets.residual_settings import ResidualSettings
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.slicing.candidates import Slicing


class SliceMambaResidualUNet(SlicedNetwork):
    """nnU-Net's PlainConvUNet, whole, with S3 blocks behind the convolutions of the stages that name some.

    The blocks' output projections start at zero, so that the network begins as nnU-Net's. A projection at zero gets a
    gradient of full rank in the first step. A scale per channel at zero (LayerScale) would do the same, but could at
    first only scale what the block's random projections give, and would cost a pass over the features.

    slicing: candidate per block in network order, default thickness 2 everywhere. The other arguments, and the options
    by name: see ResidualSettings. (B, input_channels, *spatial) -> (B, num_classes, *spatial) for any spatial size
    that leaves more than one position at the bottleneck, which InstanceNorm needs. Raises ValueError for settings that
    contradict each other.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        slicing: Sequence[Sequence[int] | str] | None = None,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        arguments = {"num_classes": num_classes, "deep_supervision": deep_supervision, **options}
        super().__init__(ResidualSettings.from_arguments(input_channels, **arguments), slicing)


class SliceMambaResidualSupernet(Supernet):
    """The supernet of SliceMambaResidualUNet: its convolutions once, its S3 blocks once per candidate slicing.

    candidates: thicknesses, "no-scan" and "no-block", default {2, 4}^n. share_weights: one set of weights per position,
    used by all candidates. The other arguments, and the options by name: see ResidualSettings. Raises ValueError for
    settings that contradict each other.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        candidates: Sequence[Sequence[int] | str] | None = None,
        share_weights: bool = False,
        deep_supervision: bool = False,
        **options: Any,
    ) -> None:
        arguments = {"num_classes": num_classes, "deep_supervision": deep_supervision, "candidates": candidates}
        super().__init__(ResidualSettings.from_arguments(input_channels, **arguments, **options), share_weights)

    def network_of(self, slicing: Slicing) -> SliceMambaResidualUNet:
        return SliceMambaResidualUNet(**self.settings.as_arguments(), slicing=slicing)
