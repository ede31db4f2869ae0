"""VM-UNet and VMamba v0 computed from their own weights, one token after the other, with nothing of this package."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)


def scan(tokens: Tensor, weights: Weights, name: str, k: int) -> Tensor:
    """The selective scan of direction k over tokens (B, L, E) in the order they are given."""
    states = weights[f"{name}.A_logs"].shape[-1]
    width = tokens.shape[-1]
    A = -weights[f"{name}.A_logs"].view(4, width, states)[k].exp()
    D = weights[f"{name}.Ds"].view(4, width)[k]
    projected = tokens @ weights[f"{name}.x_proj_weight"][k].T
    dt, B, C = projected.split([projected.shape[-1] - 2 * states, states, states], dim=-1)
    delta = F.softplus(dt @ weights[f"{name}.dt_projs_weight"][k].T + weights[f"{name}.dt_projs_bias"][k])
    state = torch.zeros(len(tokens), width, states)
    outputs = []
    for step in range(tokens.shape[1]):
        d = delta[:, step, :, None]
        state = (d * A).exp() * state + d * B[:, step, None, :] * tokens[:, step, :, None]
        outputs.append((state * C[:, step, None, :]).sum(-1) + D * tokens[:, step])
    return torch.stack(outputs, dim=1)


def ss2d(x: Tensor, weights: Weights, name: str) -> Tensor:
    """x (B, H, W, C). Directions: rows, columns, rows backwards, columns backwards."""
    a, gate = (x @ weights[f"{name}.in_proj.weight"].T).chunk(2, dim=-1)
    kernel = weights[f"{name}.conv2d.weight"]
    a = F.conv2d(a.permute(0, 3, 1, 2), kernel, weights[f"{name}.conv2d.bias"], padding=1, groups=len(kernel))
    a = F.silu(a).permute(0, 2, 3, 1)
    sizes = a.shape[1:3]
    total = torch.zeros_like(a)
    for k in range(4):
        columns, backwards = k in (1, 3), k in (2, 3)
        ordered = (a.transpose(1, 2) if columns else a).flatten(1, 2)
        ordered = ordered.flip(1) if backwards else ordered
        scanned = scan(ordered, weights, name, k)
        scanned = scanned.flip(1) if backwards else scanned
        scanned = scanned.unflatten(1, (sizes[1], sizes[0]) if columns else sizes)
        total = total + (scanned.transpose(1, 2) if columns else scanned)
    return (norm(total, weights, f"{name}.out_norm") * F.silu(gate)) @ weights[f"{name}.out_proj.weight"].T


def blocks(x: Tensor, weights: Weights, name: str) -> Tensor:
    j = 0
    while f"{name}.blocks.{j}.ln_1.weight" in weights:
        block = f"{name}.blocks.{j}"
        x = x + ss2d(norm(x, weights, f"{block}.ln_1"), weights, f"{block}.self_attention")
        j += 1
    return x


def embed(x: Tensor, weights: Weights) -> Tensor:
    x = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4)
    return norm(x.permute(0, 2, 3, 1), weights, "patch_embed.norm")


def encode(x: Tensor, weights: Weights, stages: int) -> tuple[Tensor, list[Tensor]]:
    x, skips = embed(x, weights), []
    for i in range(stages):
        skips.append(x)
        x = blocks(x, weights, f"layers.{i}")
        if i < stages - 1:
            parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
            merged = norm(torch.cat(parts, -1), weights, f"layers.{i}.downsample.norm")
            x = merged @ weights[f"layers.{i}.downsample.reduction.weight"].T
    return x, skips


def expand(x: Tensor, weights: Weights, name: str, p: int) -> Tensor:
    x = x @ weights[f"{name}.expand.weight"].T
    b, h, w, c = x.shape
    x = x.view(b, h, w, p, p, c // p**2).permute(0, 1, 3, 2, 4, 5).reshape(b, h * p, w * p, -1)
    return norm(x, weights, f"{name}.norm")


@torch.no_grad()
def vmunet(x: Tensor, weights: Weights, stages: int) -> Tensor:
    """VM-UNet's logits."""
    x, skips = encode(x, weights, stages)
    for j in range(stages):
        if j:
            x = expand(x + skips[-j], weights, f"layers_up.{j}.upsample", 2)
        x = blocks(x, weights, f"layers_up.{j}")
    x = expand(x, weights, "final_up", 4).permute(0, 3, 1, 2)
    return F.conv2d(x, weights["final_conv.weight"], weights["final_conv.bias"])
