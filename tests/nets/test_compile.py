"""torch.compile sees the whole network as one graph, on the CPU through the same operator as on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.nets import BSS, SliceMambaSupernet, SliceMambaUNet

SETTINGS: dict[str, Any] = {
    "input_channels": 1,
    "num_classes": 2,
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "n_blocks_per_stage": [1, 2],
    "n_blocks_per_stage_decoder": [1, 1],
    "d_state": 4,
    "deep_supervision": True,
}


class Graphs:
    """A compiler backend that runs what it gets by AOTAutograd, and counts the graphs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        self.count += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


@pytest.fixture
def graphs() -> Iterator[Graphs]:
    torch._dynamo.reset()
    yield Graphs()
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("strides", "autocast", "options"),
    (
        ([[4, 4], [2, 2]], True, {}),
        ([[2, 2, 2], [1, 2, 2]], False, {}),
        pytest.param(
            [[4, 4], [2, 2]],
            False,
            {"stem_features": [4, 6], "skip": "concatenate"},
            marks=pytest.mark.slow,
            id="hybrid",
        ),
    ),
)
def test_the_network_compiles_to_one_graph_with_the_same_gradients(
    graphs: Graphs, strides: list[list[int]], autocast: bool, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    n = len(strides[0])
    network = SliceMambaUNet(**SETTINGS, **options, strides=strides, drop_path_rate=0.0)
    network.set_slicing([(2, 4, 2)[:n], (4, 2, 4)[:n], (2,) * n, (4,) * n, (2, 4, 4)[:n]])
    x = torch.randn(2, 1, *(18, 14, 12)[:n])

    def step(model: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(x)
        sum((o.float() ** 2).sum() for o in output).backward()
        return output[0].detach(), [None if p.grad is None else p.grad.clone() for p in network.parameters()]

    expected, gradients = step(network)
    found, compiled_gradients = step(torch.compile(network, backend=graphs, fullgraph=True))
    assert graphs.count == 1
    tolerance = {"rtol": 5e-2, "atol": 5e-2 * float(expected.abs().max())} if autocast else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **tolerance)
    for got, wanted in zip(compiled_gradients, gradients, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None and wanted is not None:
            scale = float(wanted.abs().max())
            torch.testing.assert_close(got, wanted, rtol=0, atol=(5e-2 if autocast else 1e-4) * scale + 1e-7)


def test_stochastic_depth_and_validation_stay_one_graph_each(graphs: Graphs) -> None:
    network = SliceMambaUNet(**SETTINGS, strides=[[4, 4], [2, 2]], drop_path_rate=0.5)
    compiled = torch.compile(network, backend=graphs, fullgraph=True)
    x = torch.randn(2, 1, 16, 16)
    for _ in range(3):
        compiled(x)
    assert graphs.count == 1
    network.eval()
    with torch.no_grad():
        for _ in range(3):
            compiled(x)
    assert graphs.count == 2


def test_another_slicing_is_followed_by_a_compiled_network(graphs: Graphs) -> None:
    """A predictor loads the folds' weights, each with its slicing, one after another into one compiled network."""
    network = SliceMambaUNet(**SETTINGS, strides=[[4, 4], [2, 2]]).eval()
    compiled = torch.compile(network, backend=graphs, fullgraph=True)
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        compiled(x)
        other = {**network.state_dict(), "slicing": torch.full_like(network.slicing, 4)}
        network.load_state_dict(other)
        torch.testing.assert_close(compiled(x)[0], network(x)[0], rtol=1e-4, atol=1e-5)


def test_a_supernets_path_compiles_to_one_graph(graphs: Graphs) -> None:
    network = SliceMambaSupernet(**SETTINGS, strides=[[4, 4], [2, 2]])
    network.set_architecture([0, 1, 2, 3, 0])
    torch.compile(network, backend=graphs, fullgraph=True)(torch.randn(1, 1, 16, 16))
    assert graphs.count == 1


def test_a_compiled_block_scans_by_the_operator() -> None:
    torch._dynamo.reset()
    called: set[str] = set()

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        called.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compile(BSS(8), backend=backend)(torch.randn(1, 5, 6, 8))
    torch._dynamo.reset()
    assert "slicemamba.scan_numba" in called
