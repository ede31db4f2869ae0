"""A pretraining goes on from its own state alone, and runs nothing that a file in its place says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pretraining.training_state import TrainingState
from tests.common.malicious import malicious_files

CPU = torch.device("cpu")


def state(features: int = 2) -> TrainingState:
    network = nn.Linear(features, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    return TrainingState(
        network, SimpleNamespace(module=nn.Linear(features, 1)), optimizer, torch.amp.GradScaler("cpu"), step=3
    )


@pytest.mark.filterwarnings("ignore")
def test_nothing_in_a_file_in_its_place_is_run(tmp_path: Path) -> None:
    folder, marker = tmp_path / "files", tmp_path / "marker"
    folder.mkdir()
    for name, file in malicious_files(folder, marker):
        file.rename(tmp_path / "checkpoint_latest.pth")
        with pytest.raises(InputError, match=r"checkpoint_latest\.pth .*--discard|no state of a pretraining"):
            state().restore(tmp_path, {}, CPU)
        assert not marker.exists(), name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "is no state of a pretraining: it has no model"),
        ({"model": {}}, "it has no ema, optimizer"),
        (b"", "is empty"),
        (b"PK\x03\x04half", "cannot be read: it begins as a checkpoint"),
    ],
)
def test_another_file_is_refused_with_the_remedy(tmp_path: Path, content: Any, words: str) -> None:
    file = tmp_path / "checkpoint_latest.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match=words):
        state().restore(tmp_path, {}, CPU)


def test_a_state_that_does_not_fit_is_refused_and_one_that_does_comes_back(tmp_path: Path) -> None:
    saved = state()
    saved.save(tmp_path, {"seed": 1})
    found = state()
    found.step = 0
    assert found.restore(tmp_path, {"seed": 1}, CPU)
    assert found.step == 3
    assert torch.equal(found.network.weight, saved.network.weight)
    with pytest.raises(InputError, match=r"does not fit this training (.|\n)*give --discard"):
        state(features=5).restore(tmp_path, {"seed": 1}, CPU)
