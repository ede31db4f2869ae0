"""Published SliceMamba and VM-UNet checkpoints as state dicts of our networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.pretraining.naming import PER_DIRECTION, our_name, reorder_directions, unwrap

Source = Literal["slicemamba", "vmunet"]


def published_state_dict(
    state_dict: Mapping[str, object], network: SliceMambaBase, source: Source | None = None
) -> dict[str, Tensor]:
    """Published checkpoint renamed and reordered to load into `network` with load_state_dict.

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
