"""Tests of the GPU benchmarks' shared parts that need no GPU: what a median is of, how torchrun is called, networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import timing
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from network_gpu import nnunet_network, slicemamba2d


class Clock:
    """CUDA events of a GPU on which every call takes the next of the given milliseconds, the last one for ever."""

    def __init__(self, *milliseconds: float) -> None:
        self.left, self.now, self.calls = list(milliseconds), 0.0, 0

    def call(self) -> None:
        self.calls += 1
        self.now += self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def event(self, enable_timing: bool) -> Clock:
        made = Clock()
        made.record = lambda: setattr(made, "now", self.now)  # type: ignore[attr-defined]
        made.synchronize = lambda: None  # type: ignore[attr-defined]
        made.elapsed_time = lambda end: end.now - made.now  # type: ignore[attr-defined]
        return made


def test_a_time_is_the_median_after_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(900, 900, 900, 50, 5, 7, 6)
    monkeypatch.setattr(torch.cuda, "Event", clock.event)
    assert timing.gpu_milliseconds(clock.call, 3) == 6
    assert clock.calls == 3 + 1 + 3


def test_short_calls_are_made_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(900, 900, 900, 4, 2)
    monkeypatch.setattr(torch.cuda, "Event", clock.event)
    # five of 4 ms make 20 ms
    assert timing.gpu_milliseconds(clock.call, 3, at_least=20) == 2
    assert clock.calls == 3 + 1 + 3 * 5
    long = Clock(30)
    monkeypatch.setattr(torch.cuda, "Event", long.event)
    assert timing.gpu_milliseconds(long.call, 3, at_least=20) == 30
    assert long.calls == 3 + 1 + 3


def test_a_program_is_started_by_torchrun_in_each_process_and_its_content_comes_back(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys\n"
        "given = sys.argv[1:]\n"
        "if os.environ['RANK'] == '0':\n"
        "    json.dump([os.environ['WORLD_SIZE'], given], open(given[given.index('--json') + 1], 'w'))\n"
    )
    world, given = timing.by_torchrun(str(program), 2, {"cases": 4, "quick": True, "images": None})
    assert world == "2"
    assert given[:-1] == ["--cases", "4", "--quick", "--json"]


@pytest.mark.parametrize(
    ("cls", "strides"), [(PlainConvUNet, [[1, 1], [2, 2]]), (ResidualEncoderUNet, [[1, 1, 1], [1, 2, 2], [2, 2, 2]])]
)
def test_nnunets_networks_are_built_for_strides_in_2d_and_3d(cls: type, strides: list[list[int]]) -> None:
    axes = len(strides[0])
    network = nnunet_network(cls, 2, 3, strides, [[3] * axes] * len(strides), 40)
    outputs = network(torch.zeros(1, 2, *[16] * axes))
    assert outputs[0].shape == (1, 3, *[16] * axes)
    assert network.encoder.output_channels == [32, 40, 40][: len(strides)]


def test_the_papers_network_has_its_widths_and_depths() -> None:
    network = slicemamba2d("L")
    assert network.n_blocks == 22
    assert [stage.blocks[0].bss.in_proj.in_features for stage in network.encoder.stages] == [96, 192, 384, 768]
