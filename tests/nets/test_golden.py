"""Blocks and whole networks give the published implementation's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.nets import BSS, S3Block, SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.ops import available_backends
from nnunetv2_slicemamba.pretraining import published_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
OURS = {"ln_1": "norm", "self_attention": "bss", "conv2d": "conv"}
TOLERANCE = 1e-5


def load(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def part(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries below `prefix` under our names."""
    found = {}
    for key, value in golden.items():
        if key.startswith(prefix):
            found[".".join(OURS.get(word, word) for word in key.removeprefix(prefix).split("."))] = value
    return found


def error(found: Tensor | None, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected tensor."""
    assert found is not None
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def bss(golden: dict[str, Tensor]) -> nn.Module:
    return BSS(golden["x"].shape[-1], 2, tuple(golden["slice_method"].tolist()), int(golden["d_state"]))


def s3block(golden: dict[str, Tensor]) -> nn.Module:
    block = S3Block(golden["x"].shape[-1], 2, tuple(golden["slice_method"].tolist()), int(golden["d_state"]))
    # the published block alone has another eps than the published network, whose eps is ours
    block.norm.eps = 1e-6
    return block


@pytest.mark.parametrize("backend", available_backends("cpu"))
@pytest.mark.parametrize(
    ("file", "make"),
    [("bss_c16_n16_slice2x4.npz", bss), ("bss_c16_n4_slice4x2.npz", bss), ("s3block_c24_n16_slice4x4.npz", s3block)],
)
def test_blocks_give_the_published_outputs_and_every_published_gradient(
    file: str, make: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLICEMAMBA_BACKEND", backend)
    golden = load(file)
    block = make(golden)
    block.load_state_dict(part(golden, "param/"))
    x = golden["x"].requires_grad_()
    y = block(x)
    y.backward(golden["grad_y"])

    expected = part(golden, "grad/")
    assert set(expected) == {name for name, _ in block.named_parameters()}
    errors = {name: error(block.get_parameter(name).grad, value) for name, value in expected.items()}
    errors |= {"x": error(x.grad, golden["grad_x"]), "y": error(y.detach(), golden["y"])}
    assert max(errors.values()) < TOLERANCE, errors


def paper_settings(golden: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "input_channels": golden["x"].shape[1],
        "num_classes": 2,
        "n_stages": 4,
        "features_per_stage": golden["dims"].tolist(),
        "strides": [[4, 4], [2, 2], [2, 2], [2, 2]],
        "n_blocks_per_stage": [2, 2, 9, 2],
        "n_blocks_per_stage_decoder": [2, 2, 2, 1],
        "d_state": int(golden["d_state"]),
    }


def parameters(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("param/"): value for key, value in golden.items() if key.startswith("param/")}


@torch.no_grad()
def test_the_network_gives_the_published_logits(backend: str) -> None:
    golden = load("network.npz")
    candidates = [(2, 2), (2, 4), (4, 2), (4, 4)]
    slicing = [candidates[i] for i in golden["architecture"]]
    network = SliceMambaUNet(**paper_settings(golden), slicing=slicing).eval()
    network.load_state_dict(published_state_dict(parameters(golden), network))
    assert network.get_slicing() == tuple(slicing)
    assert error(network(golden["x"]), golden["y"]) < TOLERANCE


@torch.no_grad()
def test_the_supernet_gives_the_published_logits_of_every_path_and_so_does_the_extracted_network(backend: str) -> None:
    golden = load("supernet.npz")
    supernet = SliceMambaSupernet(**paper_settings(golden)).eval()
    supernet.load_state_dict(published_state_dict(parameters(golden), supernet))
    for i in range(2):
        architecture = golden[f"architecture_{i}"].tolist()
        supernet.set_architecture(architecture)
        path = supernet(golden["x"])
        assert error(path, golden[f"y_{i}"]) < TOLERANCE
        assert torch.equal(supernet.extract(architecture)(golden["x"]), path)
