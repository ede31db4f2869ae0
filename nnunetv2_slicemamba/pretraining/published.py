"""Published SliceMamba and VM-UNet checkpoints as state dicts of our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.base import SliceMambaBase

Source = Literal["slicemamba", "vmunet"]

WRAPPERS = ("model", "model_state_dict", "state_dict", "network_weights")
PREFIXES = {"module.": None, "smunet.": "slicemamba", "vmunet.": "vmunet"}

# first match wins; published stages hold the merging that leads out of them, ours the one that leads into them
RULES = (
    (r"patch_embed\.(.*)", r"encoder.patch_embedding.\1"),
    (r"layers\.(\d+)\.downsample\.(.*)", "merge"),
    (r"layers\.(.*)", r"encoder.stages.\1"),
    (r"layers_up\.(.*)", r"decoder.stages.\1"),
    (r"final_up\.(.*)", r"decoder.final_mapping.\1"),
    (r"final_conv\.(.*)", "head"),
)
PARTS = {".ln_1.": ".norm.", ".self_attention.": ".bss.", ".conv2d.": ".conv."}
# our direction k is VM-UNet's VMUNET_ORDER[k]: (w, w reversed, h, h reversed) out of (w, h, w reversed, h reversed)
VMUNET_ORDER = (0, 2, 1, 3)
PER_DIRECTION = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


def published_state_dict(
    state_dict: Mapping[str, object], network: SliceMambaBase, source: Source | None = None
) -> dict[str, Tensor]:
    """A published checkpoint renamed and reordered to load into `network` with load_state_dict.

    state_dict: a checkpoint as published: the bare weights, or wrapped under `model` or `model_state_dict`, with or
    without the prefixes `module.`, `smunet.`, `vmunet.`. network: a SliceMambaUNet, or a SliceMambaSupernet for a
    supernet's weights; both sizes must fit. source: "slicemamba" or "vmunet"; by default told from the prefix, else
    "slicemamba". VM-UNet has thickness 1 everywhere and another order of directions, which is undone here.

    What a publication does not have (heads of deep supervision, SliceMamba's slicing) keeps the network's values.
    Raises ValueError listing every weight that is missing, unknown or of another shape.
    """
    weights, told = unwrap(state_dict)
    chosen = source or told or "slicemamba"
    if chosen not in ("slicemamba", "vmunet"):
        raise ValueError(f"source is {chosen!r}, but must be 'slicemamba' or 'vmunet'")
    result = {name: value.detach().clone() for name, value in network.state_dict().items()}
    last_head = f"decoder.seg_layers.{len(network.decoder.seg_layers) - 1}."
    optional = {n for n in result if n.startswith("decoder.seg_layers.") and not n.startswith(last_head)}
    optional |= {"slicing", "architecture"}
    problems, seen = [], set()
    for name, value in weights.items():
        ours = our_name(name, last_head)
        if ours is None or ours not in result:
            problems.append(f"{name}: unknown to this network")
            continue
        value = value.to(result[ours].dtype)
        if value.shape != result[ours].shape:
            problems.append(f"{name}: shape {tuple(value.shape)}, this network needs {tuple(result[ours].shape)}")
        elif chosen == "vmunet" and ours.endswith(PER_DIRECTION):
            value = reorder_directions(value)
        result[ours] = value
        seen.add(ours)
    problems += [f"{name}: missing in the checkpoint" for name in result if name not in seen | optional]
    if problems:
        raise ValueError(
            f"the {chosen} checkpoint does not fit this network, {len(problems)} weights differ:\n  "
            + "\n  ".join(problems)
        )
    if chosen == "vmunet" and "slicing" in result:
        result["slicing"] = torch.ones_like(result["slicing"])
    return result


def unwrap(state_dict: Mapping[str, object]) -> tuple[dict[str, Tensor], str | None]:
    """The bare weights of a checkpoint, and the source that its prefix tells, if it does."""
    for wrapper in WRAPPERS:
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            return unwrap(inner)
    weights = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
    told = None
    stripped = True
    while stripped and weights:
        stripped = False
        for prefix, source in PREFIXES.items():
            if all(name.startswith(prefix) for name in weights):
                weights = {name[len(prefix) :]: value for name, value in weights.items()}
                told, stripped = source or told, True
    return weights, told


def our_name(name: str, last_head: str) -> str | None:
    """Our name of a published weight, None if it has none."""
    for pattern, replacement in RULES:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if replacement == "merge":
            ours = f"encoder.stages.{int(match[1]) + 1}.downsample.{match[2]}"
        elif replacement == "head":
            ours = last_head + match[1]
        else:
            ours = match.expand(replacement)
        for theirs, part in PARTS.items():
            ours = ours.replace(theirs, part)
        return ours
    return None


def reorder_directions(value: Tensor) -> Tensor:
    """VM-UNet's per-direction weights in our order of directions; flattened (4E, ..) or stacked (4, ..) alike."""
    return value.unflatten(0, (4, -1))[list(VMUNET_ORDER)].flatten(0, 1)
