"""Classifier that is trained on ImageNet: the network's encoder with a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets.bss import initialize
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet


class SliceMambaClassifier(nn.Module):
    """SliceMamba's encoder with VMamba's head: LayerNorm of the bottleneck, mean over the tokens, Linear.

    num_classes: of the images. arch_kwargs: of SliceMambaUNet, as the plans have them. slicing: candidate per block of
    the whole network; the buffer `slicing` (blocks, 2) keeps it. (B, 3, H, W), both sizes multiples of
    `total_stride`, -> (B, num_classes).
    """

    def __init__(
        self,
        num_classes: int,
        arch_kwargs: Mapping[str, Any],
        slicing: Sequence[Sequence[int] | str],
        drop_path: float,
    ) -> None:
        super().__init__()
        settings = {**arch_kwargs, "drop_path_rate": drop_path, "slicing": slicing, "deep_supervision": False}
        network = SliceMambaUNet(3, 2, **settings)
        self.encoder = network.encoder
        self.total_stride = network.total_stride
        width = settings["features_per_stage"][-1]
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.head = nn.Linear(width, num_classes)
        self.head.apply(initialize)
        self.slicing: Tensor
        self.register_buffer("slicing", network.slicing.clone())

    def forward(self, x: Tensor) -> Tensor:
        features, _ = self.encoder(x)
        return self.head(self.norm(features).flatten(1, -2).mean(1))


def check_image_size(image_size: int, arch_kwargs: Mapping[str, Any]) -> None:
    """Raises InputError unless the network's total stride divides the images' size."""
    strides = torch.tensor(arch_kwargs["strides"])
    for total in strides.prod(0).tolist():
        if image_size % total:
            raise InputError(
                f"images of {image_size} pixels are not divisible by the network's total stride {total}; "
                f"{max(1, round(image_size / total)) * total} is"
            )
