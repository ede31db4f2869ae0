"""Work of an arm's network: its parameters and its floating-point operations, by which architectures are ranked too.

A fitness that ranks no better than these is no reason for a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.nets.bss import BSS
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, NO_SCAN, Candidate, Slicing, reading_of
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

# parameters of a BSS that only its scans use
_OF_SCANS = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "scan_norms")
# of a token, direction, channel and state of the recurrence, as Mamba's authors count
_RECURRENCE = 9


@dataclass(frozen=True)
class Work:
    """Work of one network.

    parameters: that it uses. flops: of a forward pass of one patch; a multiplication and an addition are two.
    """

    parameters: int
    flops: int


def work_of(selection: Selection, slicings: Sequence[Slicing]) -> list[Work]:
    """The work of a fold's network with each of the slicings; nothing is computed."""
    with quiet():
        trainer = make_trainer(FoldFolder(selection, DEFAULT_TRAINER), torch.device("cpu"))
        trainer.initialize()
    network = trainer.bare_network.eval().to("meta")
    network.decoder.deep_supervision = False
    patch = torch.empty(1, trainer.num_input_channels, *trainer.configuration_manager.patch_size, device="meta")
    return [Work(_parameters(network, slicing), _flops(network, slicing, patch)) for slicing in slicings]


def _parameters(network: SlicedNetwork, slicing: Slicing) -> int:
    unused = 0
    for block, candidate in zip(network.block_positions(), slicing, strict=True):
        unused += sum(round((1 - _used(candidate, name)) * p.numel()) for name, p in block.named_parameters())
    return sum(p.numel() for p in network.parameters()) - unused


def _used(candidate: Candidate, parameter: str) -> float:
    """The share of a block's parameter that a candidate uses."""
    if candidate == NO_BLOCK:
        return 0.0
    name = parameter.removeprefix("bss.")
    if candidate == NO_SCAN:
        return 0.0 if name.startswith(_OF_SCANS) else 1.0
    reading = reading_of(candidate)
    has_directions = name.startswith((*_OF_SCANS, "Ds")) and not name.startswith("scan_norms")
    return 1 / len(reading) if 0 in reading and has_directions else 1.0


@torch.no_grad()
def _flops(network: SlicedNetwork, slicing: Slicing, patch: torch.Tensor) -> int:
    """Counted by PyTorch without scans, whose operators it does not know; they are added."""
    network.set_slicing([NO_BLOCK if one == NO_BLOCK else NO_SCAN for one in slicing])
    scans = 0

    def add_scan(module: BSS, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal scans
        scans += directions[module] * _scan_flops(module, inputs[0].shape[1:-1].numel())

    hooks = []
    directions: dict[BSS, int] = {}
    for block, candidate in zip(network.block_positions(), slicing, strict=True):
        assert isinstance(block, S3Block)
        if reading_of(candidate) and block.bss.scans:
            directions[block.bss] = 2 if 0 in reading_of(candidate) else block.bss.directions
            hooks.append(block.bss.register_forward_pre_hook(add_scan))
    try:
        with FlopCounterMode(display=False) as counter:
            network(patch)
    finally:
        for hook in hooks:
            hook.remove()
    return int(counter.get_total_flops()) + scans


def _scan_flops(bss: BSS, tokens: int) -> int:
    """Projections to dt, B and C, that of dt, and the recurrence, in one direction."""
    projections = 2 * (bss.rank + 2 * bss.d_state) + 2 * bss.rank
    return tokens * bss.inner * (projections + _RECURRENCE * bss.d_state)
