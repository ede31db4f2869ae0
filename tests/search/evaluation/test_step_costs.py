"""A budget is kept by sums of what blocks take; it costs no evaluation, and the search goes on with the same sums."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_files import plain_json, write_json
from nnunetv2_slicemamba.comparison.arms import parse_arms, resolve_arms
from nnunetv2_slicemamba.nets import SliceMambaUNet
from nnunetv2_slicemamba.nets.s3block import S3Block
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import Evaluation, SearchSettings, open_ledger, read_ledger, run_search
from nnunetv2_slicemamba.search.budget import require_affordable, with_share
from nnunetv2_slicemamba.search.choosing.pareto import Front, write_front
from nnunetv2_slicemamba.search.choosing.set_slicing import set_slicing
from nnunetv2_slicemamba.search.evaluation import step_costs
from nnunetv2_slicemamba.search.evaluation.step_costs import (
    STEP_COSTS_FILE,
    StepCosts,
    measure_step_costs,
    network_conditions,
    read_step_costs,
)
from nnunetv2_slicemamba.search.objectives import STEP, Cost
from nnunetv2_slicemamba.search.run import search_fold
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, NO_SCAN, wide_candidates
from tests.cli.supernets import save_untrained_supernet
from tests.search.costly_search import fingerprint_of

CPU = torch.device("cpu")
WIDE = wide_candidates(2)
PLANS, SUPERNET = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer"
OF_CANDIDATE = {(1, 1): 5.0, (8, 8): 4.0, NO_SCAN: 2.0, NO_BLOCK: 0.0}


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which a network takes 10 ms and its blocks what their candidates do, 3 ms if not OF_CANDIDATE."""

    def clock(module: torch.nn.Module, call: object, x: torch.Tensor, device: torch.device) -> float:
        blocks = [part for part in module.modules() if isinstance(part, S3Block)]
        own = 0.0 if isinstance(module, S3Block) else 10.0
        return own + sum(OF_CANDIDATE.get(block.candidate, 3.0) for block in blocks)

    monkeypatch.setattr(step_costs, "milliseconds", clock)


def test_the_table_adds_up_to_whole_networks(made_up: None) -> None:
    network = SliceMambaUNet(1, 2, 2, [4, 8], [[2, 2], [2, 2]], [1, 2], [1, 1], d_state=2)
    told: list[str] = []
    costs = measure_step_costs(network, WIDE, (2, 1, 16, 16), CPU, told.append)
    assert told == [*(f"timing the candidates of block {i} of 5" for i in range(1, 6)), "timing whole networks"]
    assert (costs.rest, costs.fixed, costs.error) == (10.0, 10 + 5 * 3.0, 0.0)
    assert costs.measure((0, 4, 5, 6, 7)) == 10 + 3 + 5 + 4 + 2 + 0
    assert costs.cheapest == 10.0


def test_a_block_that_is_left_out_takes_no_time() -> None:
    network = SliceMambaUNet(1, 2, 2, [8, 16], [[2, 2], [2, 2]], [1, 1], [1, 1], d_state=4)
    costs = measure_step_costs(network, ((2, 4), NO_SCAN, NO_BLOCK), (2, 1, 32, 32), CPU)
    assert min(costs.rest, costs.fixed) > 0
    for *longer, without_block in costs.blocks:  # which is longest depends on what else the machine does
        assert min(longer) > without_block == 0


def test_nothing_dearer_than_the_limit_is_proposed_and_a_stopped_search_ends_alike(tmp_path: Path) -> None:
    settings = SearchSettings(population=8, generations=3, parents=3, seed=3, max_step_ms=8.0)
    table = tuple(tuple(OF_CANDIDATE.get(one, 3.0) for one in WIDE) for _ in range(5))
    costs = StepCosts(WIDE, 1.0, table, 16.0, 0.0)
    assert settings.cost is not None
    limit = settings.cost
    stop = 12

    def evaluate(architecture: tuple[int, ...]) -> Evaluation:
        nonlocal stop
        stop -= 1
        if stop == 0:
            raise KeyboardInterrupt
        # Dice rises with the cost: without a limit the search would leave what is allowed
        return Evaluation(costs.measure(architecture) / 100, {}, costs.measure(architecture))

    def search(file: Path) -> list[tuple[int, ...]]:
        with open_ledger(file, fingerprint_of(settings, candidates=WIDE)) as ledger:
            allowed = lambda architecture: limit.allows(costs.measure(architecture))  # noqa: E731
            result = run_search(evaluate, settings, ledger, progress=False, allowed=allowed)
        return [record.architecture for record in result.records]

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "study.db")
    found = search(tmp_path / "study.db")
    assert len(found) == settings.evaluations
    assert max(map(costs.measure, found)) == 8.0
    assert found == search(tmp_path / "whole.db")


def test_a_share_of_the_fixed_networks_step_is_measured_once_and_searched_with(
    workspace: Path, made_up: None, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = select("901", "2d", "0", PLANS)
    save_untrained_supernet(selection, SUPERNET)
    folder = SupernetFolder(selection, SUPERNET)
    whole = 10 + 3.0 * selection.n_blocks
    limit = with_share(SearchSettings(), STEP, 1.0, folder, CPU).max_step_ms
    assert limit == whole
    said = "Timing what each of 4 candidates adds to a training step ..."
    assert capsys.readouterr().out.count(said) == 1
    kept = read_step_costs(folder)
    assert kept is not None
    assert kept.fixed == whole
    for changed in ({"batch_size": 7}, {"patch_size": [64, 64]}):
        plans = json.loads(json.dumps(selection.plans))
        plans["configurations"]["2d"].update(changed)
        other = SupernetFolder(replace(selection, plans=plans), SUPERNET)
        assert read_step_costs(other) is None, "of another network"
    file = folder.search / STEP_COSTS_FILE
    written = file.read_text()
    for key, why in (
        ("plans_sha256", "it is of an earlier version, which did not note plans"),
        ("device", "it is of an earlier version, which did not note device"),
    ):
        content = json.loads(written)
        del content["with"][key]
        file.write_text(json.dumps(content))
        if key == "plans_sha256":
            with pytest.raises(ValueError, match=f"cheapest needs the step costs .* cannot be used \\({why}"):
                set_slicing(folder, "cheapest")
        with_share(SearchSettings(), STEP, 1.0, folder, CPU)
        assert f"{file} is not used: {why}.\n{said}" in capsys.readouterr().out
        assert file.read_text() == written, "measured anew"
    settings = SearchSettings(population=3, generations=1, parents=2, max_step_ms=limit)
    found = search_fold(folder, settings, CPU, console=Console(quiet=True))
    assert found is not None
    assert said not in capsys.readouterr().out
    assert {record.cost for record in read_ledger(folder.study)[1]} == {whole}
    assert '"name": "step_ms"' in folder.slicing_file.read_text()
    with pytest.raises(ValueError, match="there is none numbered 99"):
        set_slicing(folder, "front:99")
    with pytest.raises(
        InputError, match=r"--max-step-ms 5 is below what every architecture takes: the cheapest needs"
    ) as refused:
        require_affordable(Cost("step", False, 5.0), kept)
    (told,) = re.findall(r"higher limit, --max-step (\d+)% or more \(in 'slicemamba run' --budget", str(refused.value))
    share = int(told) / 100
    require_affordable(Cost("step", False, share * kept.fixed), kept)
    assert (share - 0.01) * kept.fixed < kept.cheapest, "the smallest one"


def test_arms_at_the_budget_take_nearly_all_of_it_and_the_cheapest_the_least(workspace: Path) -> None:
    selection = select("901", "2d", "0", PLANS)
    file = selection.preprocessed_folder / f"{PLANS}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["candidates"] = plain_json(WIDE)
    file.write_text(json.dumps(plans))
    folder = SupernetFolder(select("901", "2d", "0", PLANS), SUPERNET)
    with pytest.raises(ValueError, match="cheapest needs the step costs of the candidates"):
        set_slicing(folder, "cheapest")
    own = (*(OF_CANDIDATE.get(one, 3.0) for one in WIDE[:-1]), 0.5)
    table = (own,) * selection.n_blocks
    costs = StepCosts(WIDE, 10.0, table, 31.0, 0.0, network_conditions(folder))
    write_json(folder.search / STEP_COSTS_FILE, costs.as_dict())
    assert set_slicing(folder, "cheapest")[1].slicing == (NO_BLOCK,) * selection.n_blocks
    with pytest.raises(ValueError, match="holds no search with a budget"):
        set_slicing(folder, "random-at-budget:0")
    settings = SearchSettings(population=4, generations=0, seed=1, objective="dice-step", max_step_ms=20.0)
    kept = fingerprint_of(settings, candidates=WIDE, n_blocks=selection.n_blocks)
    with open_ledger(folder.study, kept, None, False, folder.search) as ledger:
        result = run_search(
            lambda architecture: Evaluation(sum(architecture) / 100, {}, costs.measure(architecture)),
            settings,
            ledger,
            progress=False,
            allowed=lambda architecture: costs.measure(architecture) <= 20,
        )
    assert settings.cost is not None
    front = Front.of(result.records, result.best, settings.cost, {"device": "a GPU"})
    write_front(front, folder.search, settings.objective, WIDE)
    drawn = [set_slicing(folder, f"random-at-budget:{seed}")[1] for seed in range(4)]
    assert len({choice.slicing for choice in drawn}) == 4
    assert all(18 <= choice.details["step_ms"] <= 20 for choice in drawn)
    first = tuple(WIDE[index] for index in front.records[0].architecture)
    assert set_slicing(folder, "front:1")[1].slicing == first
    # arms of a comparison are the same slicings
    arms = resolve_arms(parse_arms("front:1,cheapest,random-at-budget:2,no-scan"), folder.selection, SUPERNET)
    assert [content.slicing for content in arms.values()] == [
        first,
        (NO_BLOCK,) * selection.n_blocks,
        *(choice.slicing for choice in drawn[:2]),
        (NO_SCAN,) * selection.n_blocks,
    ]
