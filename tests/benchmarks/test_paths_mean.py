"""The benchmark of several slicings' mean prediction: which logits it averages, and which path each comes from."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.search.evaluation.counting import Classes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from paths_mean import evaluate, setter, together

SHAPE = {
    "input_channels": 1,
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "strides": [[4, 4], [2, 2]],
    "n_blocks_per_stage": [1, 1],
    "n_blocks_per_stage_decoder": [1, 1],
    "num_classes": 2,
}
ONE, OTHER = (0, 1, 2, 3), (3, 2, 1, 0)


def test_powers_of_two_and_all_paths_are_averaged():
    assert together(1) == [1]
    assert together(6) == [1, 2, 4, 6]
    assert together(8) == [1, 2, 4, 8]


@pytest.mark.parametrize("kind", [SliceMambaSupernet, SliceMambaUNet])
def test_a_path_is_set_and_the_checkpoints_own_comes_back(kind: type) -> None:
    network = kind(**SHAPE)
    candidates = ((2, 2), (2, 4), (4, 2), (4, 4))

    def used() -> tuple[tuple[int, ...], ...]:
        if isinstance(network, SliceMambaSupernet):
            return network.slicing_of(network.get_architecture())
        return network.get_slicing()

    if isinstance(network, SliceMambaSupernet):
        network.set_architecture(OTHER)
    else:
        network.set_slicing([candidates[i] for i in OTHER])
    set_path = setter(network, candidates)
    set_path(ONE)
    assert used() == candidates
    set_path(None)
    assert used() == candidates[::-1]


def test_logits_are_averaged_before_a_voxel_is_decided() -> None:
    # of the foreground: the first path is sure of voxel 0, the second a little against it, the third of none
    logits = {None: [-1.0, -1.0], "a": [3.0, -1.0], "b": [-1.0, -1.0], "c": [-4.0, -1.0]}
    state: list = [None]

    def predict(data: torch.Tensor) -> torch.Tensor:
        assert data.shape == (1, 1, 2)
        return torch.tensor([[0.0, 0.0], logits[state[0]]])[:, None].half()

    predictor = SimpleNamespace(predict_sliding_window_return_logits=predict)
    case = torch.zeros(1, 1, 2), torch.tensor([[1, 0]])
    own, alone, means = evaluate(
        predictor,
        [case, case],
        Classes(((1,),)),
        lambda path: state.__setitem__(0, path),
        ["a", "b", "c"],
        Console(quiet=True),
    )
    found, missed = [1, 0, 0], [0, 0, 1]
    assert own.tolist() == [[[missed], [missed]]]
    assert alone.tolist() == [[[found], [found]], [[missed], [missed]], [[missed], [missed]]]
    assert means.tolist() == [[[found], [found]], [[found], [found]], [[missed], [missed]]]
