"""BSS: bidirectional slicing and scanning, the token mixer of SliceMamba.

After Fan et al., "SliceMamba with Neural Architecture Search for Medical Image Segmentation", IEEE JBHI 2025; the
selective scan (S6) is Gu & Dao's, "Mamba", 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_slicemamba.nets.checks import check_tokens
from nnunetv2_slicemamba.ops import slice_scan
from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.dtypes import block_dtype, recurrence_dtype
from nnunetv2_slicemamba.ops.fused import EPSILON, fused_bss
from nnunetv2_slicemamba.slicing.candidates import check_thickness

CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def move_channels_first(x: Tensor) -> Tensor:
    """View (B, C, *spatial) of (B, *spatial, C), i.e. in PyTorch's channels-last memory format."""
    return x.movedim(-1, 1)


def move_channels_last(x: Tensor) -> Tensor:
    """View (B, *spatial, C) of (B, C, *spatial)."""
    return x.movedim(1, -1)


class BSS(nn.Module):
    """Gated selective scan over the 2n slice-wise scan orders of an image or volume.

    dim: channels C. n_dims: spatial axes n, 2 or 3. thickness: band thickness per axis (see ops.scan_orders), or () for
    the scans' skip term in place of the scans. The attribute may be changed at any time, no tensor's shape depends on
    it; with a 0 in it, bands are read along that axis alone, with the weights of its two directions. d_state:
    states N per channel. expand: inner channels E = expand * C. The low rank of dt is R = ceil(C / 16).

    The following options are not the paper's. scan: False leaves only the scans' skip term, the sum of D x over the
    directions; gate, convolution, norm and projections stay, and there are no weights of scans. This is the control
    that tells what scans are worth. normalise_scan: dt, B and C pass an RMSNorm with a weight each before the scan, as
    in Jamba (Lieber et al. 2024). Both are composed of PyTorch's operators around the scan, also where a backend has
    kernels for whole blocks. starts_at_zero: `out_proj` is initialised to zero, so that a residual block begins as the
    identity.

    Input and output: (B, *spatial, C), channels last, any spatial size. Raises ValueError for bad settings.
    """

    def __init__(
        self,
        dim: int,
        n_dims: int = 2,
        thickness: tuple[int, ...] = (2, 2),
        d_state: int = 16,
        expand: int = 2,
        scan: bool = True,
        normalise_scan: bool = False,
        starts_at_zero: bool = False,
    ) -> None:
        super().__init__()
        if n_dims not in CONVOLUTIONS:
            raise ValueError(f"n_dims is {n_dims}, but SliceMamba works on 2 or 3 spatial axes")
        if min(dim, d_state, expand) < 1:
            raise ValueError(f"dim {dim}, d_state {d_state} and expand {expand} must all be at least 1")
        self.dim, self.n_dims, self.d_state = dim, n_dims, d_state
        self.inner = inner = expand * dim
        self.rank = rank = math.ceil(dim / 16)
        self.directions = directions = 2 * n_dims
        self.thickness = check_thickness(thickness, n_dims) if thickness else ()

        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = CONVOLUTIONS[n_dims](inner, inner, kernel_size=3, padding=1, groups=inner)
        self.scans, self.starts_at_zero = scan, starts_at_zero
        if scan:
            self.x_proj_weight = nn.Parameter(torch.empty(directions, rank + 2 * d_state, inner))
            self.dt_projs_weight = nn.Parameter(torch.empty(directions, inner, rank))
            self.dt_projs_bias = nn.Parameter(torch.empty(directions, inner))
            self.A_logs = nn.Parameter(torch.empty(directions * inner, d_state))
        self.Ds = nn.Parameter(torch.empty(directions * inner))
        # of dt, B and C
        self.scan_norms = nn.ModuleList(map(nn.RMSNorm, (rank, d_state, d_state))) if scan and normalise_scan else None
        self.out_norm = nn.LayerNorm(inner, eps=EPSILON)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.reset_scan_parameters()
        self.apply(initialize)

    @torch.no_grad()
    def reset_scan_parameters(self) -> None:
        """Draws the five scan parameters as VMamba does; nothing else of the block changes."""
        nn.init.ones_(self.Ds)
        if not self.scans:
            return
        nn.init.uniform_(self.x_proj_weight, -(self.inner**-0.5), self.inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(self.rank**-0.5), self.rank**-0.5)
        # softplus(bias) is log-uniform in [1e-3, 0.1]: bias = inverse softplus of such a draw
        log_dt = torch.empty_like(self.dt_projs_bias).uniform_(math.log(1e-3), math.log(0.1))
        dt = log_dt.exp()
        self.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.A_logs.copy_(torch.arange(1, self.d_state + 1, dtype=torch.float32).log().expand_as(self.A_logs))

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing():
            check_tokens(x, self.dim, self.n_dims)
        out = self.fused(x)
        return self.composed(x) if out is None else out

    def composed(self, x: Tensor) -> Tensor:
        """The block by PyTorch's operators around the scan."""
        sizes = tuple(x.shape[1:-1])
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = move_channels_last(F.silu(self.conv(move_channels_first(x))))
        y = self.scan(x.flatten(1, -2), sizes).unflatten(1, sizes)
        return self.out_proj(self.out_norm(y) * F.silu(gate))

    def fused(self, x: Tensor) -> Tensor | None:
        """The whole block by kernels of the backend that scans; None where it has none for this one."""
        if not self.scans or self.scan_norms is not None or self.out_norm.eps != EPSILON:
            return None
        return fused_bss(x, self.block_parameters, self.thickness)

    def block_parameters(self) -> BssParameters:
        """All parameters, as kernels for whole blocks take them."""
        assert self.conv.bias is not None
        return BssParameters(
            self.in_proj.weight,
            self.conv.weight,
            self.conv.bias,
            self.of_directions(self.x_proj_weight),
            self.of_directions(self.dt_projs_weight),
            self.of_directions(self.dt_projs_bias),
            self.of_directions(self.A_logs),
            self.of_directions(self.Ds),
            self.out_norm.weight,
            self.out_norm.bias,
            self.out_proj.weight,
        )

    @property
    def axis(self) -> int | None:
        """The only axis along which bands are read; None for all."""
        return self.thickness.index(0) if 0 in self.thickness else None

    def of_directions(self, parameter: Tensor) -> Tensor:
        """The part of a scan parameter, whose first axis has all directions, that belongs to those which are read."""
        if self.axis is None:
            return parameter
        # axes come last first, each with both directions
        return parameter.chunk(self.n_dims)[self.n_dims - 1 - self.axis]

    def scan(self, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Sum of the scans along the directions that are read: (B, L, E) tokens in raster order -> (B, L, E)."""
        inner, n = self.inner, self.d_state
        if not self.scans or not self.thickness:
            return tokens * self.Ds.view(self.directions, inner).sum(0)
        directions = self.directions if self.axis is None else 2
        # dt, B and C are linear per token, so one product serves all directions before any reordering
        projected = F.linear(tokens, self.of_directions(self.x_proj_weight).flatten(0, 1)).unflatten(
            -1, (directions, -1)
        )
        if block_dtype(tokens.dtype) != tokens.dtype and self.Ds.dtype == torch.float32:
            # autocast's; a module converted to float16 gets what it asks for
            tokens, projected = tokens.float(), projected.float()
        dt, B, C = projected.split([self.rank, n, n], dim=-1)
        if self.scan_norms is not None:
            dt, B, C = (norm(value) for norm, value in zip(self.scan_norms, (dt, B, C), strict=True))
        recurrence = recurrence_dtype(tokens.dtype)
        return slice_scan(
            tokens,
            dt,
            B,
            C,
            -torch.exp(self.of_directions(self.A_logs).to(recurrence)).view(directions, inner, n),
            self.of_directions(self.Ds).to(recurrence).view(directions, inner),
            sizes,
            tuple(part or 1 for part in self.thickness),
            delta_bias=self.of_directions(self.dt_projs_bias).to(recurrence),
            dt_weight=self.of_directions(self.dt_projs_weight),
            axis=self.axis,
        )

    def extra_repr(self) -> str:
        return f"dim={self.dim}, thickness={self.thickness}, d_state={self.d_state}"


def initialize(module: nn.Module) -> None:
    """nnU-Net's initialisation hook: Linear truncated normal 0.02, LayerNorm 1 and 0, `starts_at_zero` of a BSS.

    Convolutions keep PyTorch's default; BSS's five scan parameters belong to no such module and stay as drawn.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, BSS) and module.starts_at_zero:
        # after the Linear itself: nnU-Net's `apply` comes to children first
        nn.init.zeros_(module.out_proj.weight)
