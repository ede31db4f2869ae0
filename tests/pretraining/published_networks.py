"""Small networks of ours, and their weights under the names and orders of the publications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets import SliceMambaUNet

SETTINGS: dict[str, Any] = {
    "input_channels": 3,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "strides": [[4, 4], [2, 2]],
    "n_blocks_per_stage": [1, 2],
    "n_blocks_per_stage_decoder": [1, 1],
    "d_state": 4,
    "drop_path_rate": 0.0,
}
SLICING = [(2, 4), (4, 2), (4, 4), (2, 2), (4, 2)]
PER_DIRECTION = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


@torch.no_grad()
def random_network(kind: type = SliceMambaUNet, seed: int = 0, **changes: Any) -> Any:
    """A network whose outputs depend on every direction and on the slicing."""
    torch.manual_seed(seed)
    network = kind(**SETTINGS | changes).eval()
    for parameter in network.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def their_name(name: str) -> str | None:
    """The published name of one of our weights; None for what publications do not have."""
    words = name.split(".")
    words = [
        {"norm": "ln_1", "bss": "self_attention", "conv": "conv2d"}.get(w, w) if "blocks" in words else w for w in words
    ]
    match words:
        case ["encoder", "patch_embedding", *rest]:
            return ".".join(["patch_embed", *rest])
        case ["encoder", "stages", stage, "downsample", *rest]:
            return ".".join(["layers", str(int(stage) - 1), "downsample", *rest])
        case ["encoder", "stages", *rest]:
            return ".".join(["layers", *rest])
        case ["decoder", "stages", *rest]:
            return ".".join(["layers_up", *rest])
        case ["decoder", "final_mapping", *rest]:
            return ".".join(["final_up", *rest])
        case ["decoder", "seg_layers", "1", *rest]:
            return ".".join(["final_conv", *rest])
    return None


def published(network: torch.nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The network's weights as the publication stores them."""
    named = {their_name(name): value.clone() for name, value in network.state_dict().items()}
    return {prefix + name: value for name, value in named.items() if name is not None}


def as_vmunet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in our order of directions (w, w reversed, h, h reversed) in VM-UNet's (w, h, w reversed, h reversed)."""
    result = {}
    for name, value in weights.items():
        if name.endswith(PER_DIRECTION):
            w, w_reversed, h, h_reversed = value.chunk(4)
            value = torch.cat([w, h, w_reversed, h_reversed])
        result[name] = value
    return result


@torch.no_grad()
def outputs(network: torch.nn.Module) -> Tensor:
    x = torch.linspace(-1, 1, 3 * 24 * 32).view(1, 3, 24, 32).sin_()
    return network(x.to(next(network.parameters()).dtype))
