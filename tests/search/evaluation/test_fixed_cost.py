"""A limit may be a share of what the fixed network takes, which is measured once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets.s3block import CandidateBlock
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import SearchSettings
from nnunetv2_slicemamba.search.budget import with_share
from nnunetv2_slicemamba.search.evaluation import fixed_cost
from nnunetv2_slicemamba.search.evaluation.cost_measurement import CostMeter
from nnunetv2_slicemamba.search.evaluation.fixed_cost import FIXED_COSTS_FILE, fixed_cost_of
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetError
from nnunetv2_slicemamba.search.objectives import LATENCY, MEMORY, STEP, Cost

CPU = torch.device("cpu")


@pytest.fixture
def folder(workspace: Path) -> SupernetFolder:
    found = SupernetFolder(select("902", "3d_fullres", "0", "nnUNetSliceMambaSPlans"), "SliceMambaSupernetTrainer")
    found.path.mkdir(parents=True)
    found.checkpoint.touch()  # which is not read
    return found


def test_a_share_of_the_latency_is_that_of_the_fixed_network_and_stays_what_it_was(
    folder: SupernetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def clock(self: CostMeter) -> float:
        blocks = [block for block in self._network.modules() if isinstance(block, CandidateBlock)]
        measured.append([block.chosen.candidate for block in blocks])
        return 12.5 * len(measured)

    monkeypatch.setattr(CostMeter, "_milliseconds", clock)
    settings = with_share(SearchSettings(), LATENCY, 0.6, folder, CPU, keep=False)
    assert settings.max_latency_ms == 7.5
    assert not (folder.search / FIXED_COSTS_FILE).exists()
    kept = with_share(SearchSettings(), LATENCY, 0.6, folder, CPU)
    assert kept.max_latency_ms == 15
    assert with_share(SearchSettings(), LATENCY, 0.6, folder, CPU) == kept
    assert measured == [[(2, 4, 2)] * folder.selection.n_blocks] * 2
    file = folder.search / FIXED_COSTS_FILE
    content = json.loads(file.read_text())
    assert content["latency_ms"]["value"] == 25
    content["latency_ms"]["with"]["device"] = "another one"
    file.write_text(json.dumps(content))
    assert with_share(SearchSettings(), LATENCY, 0.6, folder, CPU).max_latency_ms == pytest.approx(0.6 * 37.5)


def test_other_plans_are_another_network_and_measured_anew(
    folder: SupernetFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fixed_cost, "_measured", lambda *_: 20.0)
    cost = Cost(LATENCY, False)
    assert fixed_cost_of(folder, cost, CPU) == 20
    monkeypatch.setattr(fixed_cost, "_measured", lambda *_: 30.0)
    assert fixed_cost_of(folder, cost, CPU) == 20
    plans = json.loads(json.dumps(folder.selection.plans))
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["d_state"] = 3
    other = replace(folder, selection=replace(folder.selection, plans=plans))
    assert fixed_cost_of(other, cost, CPU) == 30
    assert "is not used: it was measured under other conditions (plans). Measuring" in capsys.readouterr().out
    # a file of an earlier version may be of any plans
    file = folder.search / FIXED_COSTS_FILE
    content = json.loads(file.read_text())
    del content["latency_ms"]["with"]["plans_sha256"]
    file.write_text(json.dumps(content))
    monkeypatch.setattr(fixed_cost, "_measured", lambda *_: 40.0)
    assert fixed_cost_of(folder, cost, CPU) == 40
    told = f"The latency (ms) in {file} is not used: it is of an earlier version, which did not note plans. Measuring"
    assert told in capsys.readouterr().out


def test_what_cannot_be_a_limit_is_refused_before_anything_is_measured(folder: SupernetFolder) -> None:
    with pytest.raises(InputError, match="--max-memory-mib needs a CUDA device"):
        with_share(SearchSettings(), MEMORY, 0.6, folder, CPU)
    with pytest.raises(InputError, match="--max-step and --max-step-ms are the same limit; give one of them"):
        with_share(SearchSettings(max_step_ms=3.0), STEP, 0.6, folder, CPU)
    with pytest.raises(ValueError, match="ask for two costs, latency and peak memory"):
        with_share(SearchSettings(max_latency_ms=3.0), MEMORY, 0.6, folder, CPU)
    folder.checkpoint.unlink()
    with pytest.raises(SupernetError, match="there is no trained supernet"):
        with_share(SearchSettings(), LATENCY, 0.6, folder, CPU)
