"""Parameters and operations of a network are those that its slicing uses."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_slicemamba.comparison.work import _flops, _parameters, work_of
from nnunetv2_slicemamba.nets import SliceMambaUNet
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, NO_SCAN

WIDTH, TOKENS, STATES = 16, 64, 4
SETTINGS = (1, 2, 1, [WIDTH], [[2, 2]], [1], [1])


def network() -> SliceMambaUNet:
    return SliceMambaUNet(*SETTINGS, d_state=STATES).eval()


def test_parameters_are_those_that_get_a_gradient() -> None:
    for slicing in (((2, 4), (1, 1)), ((2, 4), NO_SCAN), ("4@h", "2@w"), (NO_SCAN, NO_BLOCK), (NO_BLOCK, NO_BLOCK)):
        own = network()
        own.set_slicing(slicing)
        own(torch.randn(1, 1, 16, 16)).square().sum().backward()
        rows = [p.grad.flatten(1) if p.dim() > 1 else p.grad[:, None] for p in own.parameters() if p.grad is not None]
        used = sum(int((row != 0).any(1).sum()) * row.shape[1] for row in rows)
        assert _parameters(own, slicing) == used


def test_operations_of_a_block_are_those_of_its_products() -> None:
    own, patch = network().to("meta"), torch.empty(1, 1, 16, 16, device="meta")
    scan, without_scan, without_block = (_flops(own, (one, NO_BLOCK), patch) for one in ((2, 4), NO_SCAN, NO_BLOCK))
    inner = 2 * WIDTH
    # in_proj, out_proj and the depthwise convolution
    assert without_scan - without_block == 2 * TOKENS * (WIDTH * 2 * inner + inner * WIDTH + 9 * inner)
    rank = 1
    recurrence = 9 * TOKENS * 4 * inner * STATES
    assert scan - without_scan == 2 * TOKENS * 4 * inner * (rank + 2 * STATES + rank) + recurrence
    assert _flops(own, ((8, 8), NO_BLOCK), patch) == scan
    assert _flops(own, ("4@h", NO_BLOCK), patch) - without_scan == (scan - without_scan) / 2
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        own(patch)  # with the slicing that was left: no scan, no block
    assert counter.get_total_flops() == without_scan


@pytest.mark.parametrize(("dataset", "configuration"), [("901", "2d"), ("902", "3d_fullres")])
def test_the_planned_network_is_counted_in_2d_and_3d(workspace: object, dataset: str, configuration: str) -> None:
    selection = select(dataset, configuration, "0", "nnUNetSliceMambaSPlans")
    thickness = (2,) * selection.n_dims
    made = work_of(selection, [(one,) * selection.n_blocks for one in (thickness, NO_SCAN, NO_BLOCK)])
    assert sorted(made, key=lambda work: (-work.parameters, -work.flops)) == made
    assert len({work.flops for work in made}) == len({work.parameters for work in made}) == 3
