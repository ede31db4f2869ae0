"""Patch merging and expanding move every value to the place that published weights expect."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets.resampling import PatchEmbedding, PatchExpanding, PatchMerging

STRIDES = [(2, 2), (1, 2), (3, 2), (2, 2, 2), (1, 2, 2), (2, 1, 3)]


def without_weights(module: PatchMerging | PatchExpanding) -> nn.Module:
    """The module with its norm and its product taken out, so that only the rearrangement is left."""
    module.norm = nn.Identity()  # type: ignore[assignment]
    name = "reduction" if isinstance(module, PatchMerging) else "expand"
    setattr(module, name, nn.Identity())
    return module


def test_merging_concatenates_a_cells_neighbours_in_the_published_order() -> None:
    x = torch.randn(2, 4, 6, 3)
    merged = without_weights(PatchMerging(3, 6, (2, 2)))(x)
    assert merged.shape == (2, 2, 3, 12)
    for row, column in product(range(2), range(3)):
        for place, (i, j) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
            expected = x[:, 2 * row + i, 2 * column + j]
            assert torch.equal(merged[:, row, column, 3 * place : 3 * place + 3], expected)


@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_merging_varies_the_first_axis_fastest(stride: tuple[int, ...]) -> None:
    coarse = (2, 3, 2)[: len(stride)]
    x = torch.randn(1, *(c * s for c, s in zip(coarse, stride, strict=True)), 2)
    merged = without_weights(PatchMerging(2, 2, stride))(x)
    for cell in product(*(range(c) for c in coarse)):
        values: list[Tensor] = []
        for offset in sorted(product(*(range(s) for s in stride)), key=lambda o: o[::-1]):
            values.append(x[(0, *(c * s + o for c, s, o in zip(cell, stride, offset, strict=True)))])
        assert torch.equal(merged[(0, *cell)], torch.cat(values))


@pytest.mark.parametrize("stride", STRIDES, ids=str)
def test_expanding_lays_channels_out_with_the_first_axis_slowest(stride: tuple[int, ...]) -> None:
    coarse, dim_out = (2, 3, 2)[: len(stride)], 2
    cell_size = 1
    for s in stride:
        cell_size *= s
    x = torch.randn(1, *coarse, cell_size * dim_out)
    expanded = without_weights(PatchExpanding(8, dim_out, stride))(x)
    for cell in product(*(range(c) for c in coarse)):
        # product() varies its last factor fastest, so the first axis is slowest
        for place, offset in enumerate(product(*(range(s) for s in stride))):
            position = (0, *(c * s + o for c, s, o in zip(cell, stride, offset, strict=True)))
            assert torch.equal(expanded[position], x[(0, *cell)][place * dim_out : (place + 1) * dim_out])


def test_merging_and_expanding_apply_norm_and_product_where_the_publication_does() -> None:
    merging, expanding = PatchMerging(4, 8, (2, 2)), PatchExpanding(8, 4, (2, 2))
    assert (merging.norm.normalized_shape, merging.reduction.weight.shape) == ((16,), (8, 16))
    assert (expanding.norm.normalized_shape, expanding.expand.weight.shape) == ((4,), (16, 8))
    for module in (merging, expanding, PatchEmbedding(1, 4, (4, 4))):
        assert module.norm.eps == 1e-5
        assert [name for name, _ in module.named_parameters() if name.endswith("bias")] in (
            ["norm.bias"],
            ["proj.bias", "norm.bias"],  # the patch embedding's convolution has one
        )
    # the norm comes last in expanding, first in merging
    y = expanding(torch.randn(2, 3, 3, 8))
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 6, 6), rtol=0, atol=1e-5)
