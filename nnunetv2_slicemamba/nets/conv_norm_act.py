"""Convolution, InstanceNorm and LeakyReLU, nnU-Net's unit, in PyTorch's channels-last memory format."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.bss import CONVOLUTIONS, move_channels_first, move_channels_last
from nnunetv2_slicemamba.ops.instance_norm import instance_norm_leaky_relu
from nnunetv2_slicemamba.ops.loop_scan import is_exporting

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by number of axes, batch and channels included
TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def in_channels_last(x: Tensor) -> Tensor:
    """x (B, C, *spatial), copied into the channels-last memory format unless it lies there.

    As it is while the network is exported: a file's runtime has layouts of its own.
    """
    if is_exporting():
        return x
    if x.shape[1] > 1:
        return x.contiguous(memory_format=CHANNELS_LAST[x.ndim])
    # One channel lies in both formats at once. A convolution goes by its stride, and its result would be copied.
    return move_channels_first(x.contiguous().squeeze(1).unsqueeze(-1))


def concatenate(a: Tensor, b: Tensor) -> Tensor:
    """Concatenation along the channels, a's first. Both are (B, C, *spatial) and channels last, as is the result."""
    if is_exporting():
        return torch.cat([a, b], dim=1)
    # rows: PyTorch's kernel for concatenation takes four axes at most and copies volumes piece by piece
    rows = [move_channels_last(x).flatten(0, -2) for x in (a, b)]
    return move_channels_first(torch.cat(rows, dim=1).unflatten(0, (a.shape[0], *a.shape[2:])))


class ConvNormAct(nn.Module):
    """Convolution, InstanceNorm with weight and bias, LeakyReLU.

    (B, channels_in, *spatial) -> (B, channels_out, *(spatial / stride)), channels last in memory. kernel: odd sizes,
    padded by half, so that sizes divide exactly. eps: of the norm. slope: of the LeakyReLU. The convolution has no bias
    of its own: the norm would subtract it again.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        eps: float = 1e-5,
        slope: float = 1e-2,
    ) -> None:
        super().__init__()
        self.eps, self.slope = eps, slope
        padding = tuple(size // 2 for size in kernel)
        convolution = CONVOLUTIONS[len(stride)]
        self.conv = convolution(channels_in, channels_out, tuple(kernel), tuple(stride), padding, bias=False)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.ones(channels_out))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        # one input channel leaves the format of a convolution's result open
        x = in_channels_last(self.conv(x))
        return instance_norm_leaky_relu(x, self.weight, self.bias, self.eps, self.slope)
