"""An image with NaN or infinite values does not become background without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaUNet


@pytest.fixture
def network(settings: Callable[..., dict[str, Any]]) -> SliceMambaUNet:
    return SliceMambaUNet(**settings()).eval()


def image(**values: float) -> torch.Tensor:
    """An image of 2 channels whose first values are the given ones."""
    x = torch.randn(1, 2, 16, 16)
    for place, value in enumerate(values.values()):
        x.view(-1)[place] = value
    return x


@torch.no_grad()
def test_a_network_in_evaluation_warns_once_with_their_number(network: SliceMambaUNet) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(image())
    x = image(a=float("nan"), b=float("-inf"))
    with pytest.warns(RuntimeWarning, match="2 of 512 values of the image are NaN or infinite"):
        logits = network(x)
    assert logits.isnan().any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(x)


def test_trainings_and_traces_are_not_checked(network: SliceMambaUNet) -> None:
    x = image(a=float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        network.train()(x)
        torch.jit.trace(network.eval(), x, check_trace=False)
