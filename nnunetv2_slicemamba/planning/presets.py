"""The networks that `slicemamba plan` plans, by size and kind, for code that has no plans."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunetv2_slicemamba.nets import SlicedNetwork, SliceMambaResidualUNet, SliceMambaUNet
from nnunetv2_slicemamba.planning.architecture import architecture_kwargs
from nnunetv2_slicemamba.planning.residual import plain_unet_kwargs, residual_kwargs
from nnunetv2_slicemamba.planning.sizes import RECOMMENDED, check_size_and_network
from nnunetv2_slicemamba.slicing.candidates import check_candidate
from nnunetv2_slicemamba.slicing.fixed import fixed_slicing

# large enough for all stages, as in most of nnU-Net's plans
PATCHES = {2: (512, 512), 3: (128, 128, 128)}
# nnU-Net's planners: voxels per axis that pooling leaves, and no limit to the number of poolings
SMALLEST_FEATURE_MAP, POOLINGS = 4, 999999


def slicemamba_unet(
    dims: int = 2,
    size: str = "L",
    network: str = RECOMMENDED,
    *,
    in_channels: int = 1,
    classes: int = 2,
    patch_size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    slicing: Sequence[int] | str | Sequence[Sequence[int] | str] | None = None,
    deep_supervision: bool = False,
    activation_checkpointing: bool = False,
) -> SlicedNetwork:
    """The network that `slicemamba plan` plans for images of this kind, with fresh weights.

    - dims: spatial axes, 2 or 3.
    - size: "S", "M" or "L", small to large.
    - network: "residual" is the recommended one, nnU-Net's own with S3 blocks, "paper" the published one, "hybrid"
      that with convolutional stages around it.
    - in_channels: channels of the images.
    - classes: channels of the logits; count the background if a softmax follows.
    - patch_size: size of the images that it trains on, default 512x512 or 128x128x128. It decides how often the
      network halves an axis. Images of any other size can be given to the network too.
    - spacing: size of a voxel per axis, default 1 each. nnU-Net halves a coarse axis later. Both have the order of the
      images' axes, D, H, W.
    - slicing: one thickness for all blocks, such as (2, 4), or a list with one for each block; default 2x4 in 2D and
      2x4x2 in 3D. "no-scan" and "no-block" can stand for a thickness.
    - deep_supervision: the network returns a list of logits, full resolution first, in evaluation too. Switch it by
      `network.decoder.deep_supervision`.
    - activation_checkpointing: less memory in training, about a third more time.

    `(B, in_channels, *spatial)` becomes logits `(B, classes, *spatial)`. Raises ValueError for what does not fit.
    """
    check_size_and_network(size, network)
    if dims not in PATCHES:
        raise ValueError(f"dims is {dims!r}, the number of spatial axes: give 2 or 3")
    patch = _per_axis("patch_size", patch_size, PATCHES[dims])
    _, strides, kernels, *_ = get_pool_and_conv_props(
        _per_axis("spacing", spacing, (1.0,) * dims), patch, SMALLEST_FEATURE_MAP, POOLINGS
    )
    channels = {"input_channels": in_channels, "num_classes": classes, "deep_supervision": deep_supervision}
    built: SlicedNetwork
    if network == "residual":
        planned = plain_unet_kwargs(strides, kernels, size)
        arguments = residual_kwargs(planned, activation_checkpointing=activation_checkpointing)
        built = SliceMambaResidualUNet(**channels, **arguments)  # type: ignore[arg-type]
    else:
        arguments = architecture_kwargs(strides, size, activation_checkpointing, network == "hybrid")
        built = SliceMambaUNet(**channels, **arguments)  # type: ignore[arg-type]
    if slicing is None:
        slicing = fixed_slicing(built.n_blocks, dims)
    elif not _is_per_block(slicing):
        slicing = [check_candidate(slicing, dims)] * built.n_blocks
    built.set_slicing(slicing)  # type: ignore[arg-type]
    return built


def _per_axis(name: str, values: Sequence[Any] | None, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, one per axis like the default; ValueError for another number of them, or one that is not above 0."""
    if values is None:
        return default
    shown = tuple(values) if isinstance(values, Iterable) else values
    if (
        not isinstance(shown, tuple)
        or len(shown) != len(default)
        or not all(isinstance(value, Real) and 0 < float(value) < math.inf for value in shown)
    ):
        raise ValueError(f"{name} is {shown!r}, it must be {len(default)} numbers above 0: give for example {default}")
    return shown


def _is_per_block(slicing: Any) -> bool:
    """True for a list with one entry per block, False for one thickness or name."""
    return (
        isinstance(slicing, Iterable)
        and not isinstance(slicing, str)
        and any(isinstance(entry, Iterable) for entry in slicing)
    )
