"""Versions of VMamba: the one whose blocks are ours, and the reasons why the others do not fit."""

from __future__ import annotations

import re

from nnunetv2_slicemamba.pretraining.naming import Checkpoint

FITTING = (
    "What fits: VMamba v0, that is VSSM with ssm_d_state 16, ssm_ratio 2, mlp_ratio 0, downsample v1 and patchembed v1 "
    "(configurations vssm_*_224 of January and February 2024, later named vmambav0_*_224; checkpoints "
    "vssmtiny_dp01_*, vssmsmall_dp03_*, vssmbase_*). What does not: v2, v05 and later (vssm1_*, "
    "vmambav2_*, vmambav2v_*)"
)


def reasons(checkpoint: Checkpoint) -> list[str]:
    """Reasons why weights are not VMamba v0's: parts of another block, stem or merging; empty where they are."""
    weights = checkpoint.weights

    def first(pattern: str) -> str | None:
        return next((name for name in weights if re.search(pattern, name)), None)

    found = []
    if name := first(r"\.mlp\."):
        found.append(f"its blocks have an MLP ({name})")
    if name := first(r"\.in_proj\.weight$"):
        value = weights[name]
        if value.ndim != 2:
            found.append(f"its projections are convolutions ({name} has {value.ndim} axes)")
        elif value.shape[0] == 2 * value.shape[1]:
            found.append(f"its blocks have no gate ({name} is {tuple(value.shape)})")
        if first(r"\.conv2d\.weight$") and not first(r"\.conv2d\.bias$"):
            found.append("its depthwise convolutions have no bias")
    if (name := first(r"\.A_logs$")) and weights[name].shape[-1] == 1:
        found.append(f"its scan has one state per channel ({name} is {tuple(weights[name].shape)})")
    for part in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"):
        if first(r"\.in_proj\.weight$") and not first(rf"\.{part}$"):
            found.append(f"its scan has no {part}")
    if first(r"^patch_embed\.[5-7]\."):
        found.append("its stem has two overlapping convolutions (patchembed v2)")
    if first(r"\.downsample\.[0-9]\."):
        found.append("it merges patches by a convolution (downsample v2 or v3)")
    return found
