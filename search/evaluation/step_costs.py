"""Step costs: the time of a training step of any architecture, as a sum of what each block's candidate takes.

Every candidate is measured once for each kind of block position (channels, tokens, type), alone, and the network once
with all blocks left out. Sums are compared with whole networks; the largest difference is kept beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.hashing import sha256_of_plans
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonFileError, JsonKind
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import progress_console
from nnunetv2_slicemamba.nets import S3Block, SlicedNetwork
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.search.evaluation.cost_measurement import measured_with, why_measured_anew
from nnunetv2_slicemamba.search.evaluation.step_timing import milliseconds
from nnunetv2_slicemamba.search.objectives import STEP, Cost
from nnunetv2_slicemamba.slicing.candidate_sets import are_same
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, Architecture, Slicing
from nnunetv2_slicemamba.slicing.fixed import fixed_slicing
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

STEP_COSTS_FILE = "step_costs.json"
CHECKED = 3  # whole networks drawn at random that sums are compared with, beside the fixed one
TOLERABLE = 0.05
_KIND = JsonKind(
    "a table of step costs",
    {
        "candidates": [([int], str)],
        "rest": float,
        "blocks": [[float]],
        "fixed": float,
        "error": float,
        "with": {str: str},
    },
    "Delete it; the search measures it anew",
)


@dataclass(frozen=True)
class StepCosts:
    """The milliseconds of a training step (forward and backward pass of a batch) that an architecture takes.

    rest: of everything but the blocks. blocks: (blocks, candidates). fixed: of the whole network with the fixed
    slicing. error: largest relative difference between a sum and a whole network. conditions: how and on what it was
    measured.
    """

    candidates: Slicing
    rest: float
    blocks: tuple[tuple[float, ...], ...]
    fixed: float
    error: float
    conditions: Mapping[str, str] = field(default_factory=dict)

    def measure(self, architecture: Architecture) -> float:
        """The step's milliseconds, added up."""
        return self.rest + sum(own[index] for own, index in zip(self.blocks, architecture, strict=True))

    @property
    def cheapest(self) -> float:
        """The least that an architecture takes."""
        return self.rest + sum(map(min, self.blocks))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as the file has them."""
        return {
            "candidates": self.candidates,
            "rest": self.rest,
            "blocks": self.blocks,
            "fixed": self.fixed,
            "error": self.error,
            "with": dict(self.conditions),
        }


def read_step_costs(folder: SupernetFolder) -> StepCosts | None:
    """The fold's table, measured on any device; None without one for this network."""
    found = look_for_step_costs(folder, None)
    return found if isinstance(found, StepCosts) else None


def look_for_step_costs(folder: SupernetFolder, device: torch.device | None) -> StepCosts | str:
    """The fold's table, measured on `device` if one is given; why there is none in place of it, "" without a file."""
    file = folder.search / STEP_COSTS_FILE
    try:
        content = _KIND.read_if_there(file)
    except JsonFileError:
        return "it cannot be read"
    if content is None:
        return ""
    if not are_same(content["candidates"], folder.selection.candidates):
        return "it is of other candidates"
    expected = {**network_conditions(folder), **({} if device is None else measured_with(Cost(STEP, False), device))}
    why = why_measured_anew(content["with"], expected)
    if why is not None:
        return why
    blocks = tuple(tuple(map(float, own)) for own in content["blocks"])
    rest, fixed, error = (float(content[name]) for name in ("rest", "fixed", "error"))
    return StepCosts(folder.selection.candidates, rest, blocks, fixed, error, content["with"])


def step_costs_of(folder: SupernetFolder, device: torch.device, keep: bool = True) -> StepCosts:
    """The fold's table on this device, measured now if there is none; says so if it does not add up.

    keep: write what is measured.
    """
    found = look_for_step_costs(folder, device)
    if isinstance(found, StepCosts):
        return found
    file = folder.search / STEP_COSTS_FILE
    console = progress_console()
    if found:
        console.print(f"{file} is not used: {found}.", soft_wrap=True)
    with quiet():
        trainer = make_trainer(FoldFolder(folder.selection, DEFAULT_TRAINER), device)
        trainer.initialize()
    network = trainer.bare_network
    manager = trainer.configuration_manager
    shape = (manager.batch_size, trainer.num_input_channels, *manager.patch_size)
    candidates = folder.selection.candidates
    console.print(f"Timing what each of {len(candidates)} candidates adds to a training step ...")
    with console.status("timing blocks") as status:
        measured = measure_step_costs(network, candidates, shape, device, status.update)
    measured = replace(measured, conditions={**measured.conditions, **network_conditions(folder)})
    if keep:
        write_json(file, measured.as_dict())
    if measured.error > TOLERABLE:
        PlainConsole().print(
            f"The blocks' step costs add up to {100 * measured.error:.0f} % more or less than whole networks take. "
            f"If other work ran on the device, have them measured again: {shell_line('rm', file)}"
        )
    return measured


def network_conditions(folder: SupernetFolder) -> dict[str, str]:
    """The network and the batch that a table is of, as it says."""
    selection = folder.selection
    return {
        "plans_sha256": sha256_of_plans(selection.plans, selection.configuration),
        "batch_size": str(selection.configuration_manager.batch_size),  # which is not in the hash
    }


def measure_step_costs(
    network: SlicedNetwork,
    candidates: Slicing,
    shape: Sequence[int],
    device: torch.device,
    tell: Callable[[str], None] = lambda _: None,
) -> StepCosts:
    """Measures a network's blocks and, to compare, whole networks; its slicing is another one afterwards.

    network: on the device. shape: of a batch. tell: is given what is timed next, in words.
    """
    network.train()
    data = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)).to(device)
    n = network.n_blocks

    def whole(slicing: Slicing) -> float:
        network.set_slicing(slicing)
        return milliseconds(network, network.forward, data, device)

    inputs = block_inputs(network, data, device)
    known: dict[Any, tuple[float, ...]] = {}
    blocks = []
    for number, (block, x) in enumerate(zip(network.block_positions(), inputs, strict=True), 1):
        assert isinstance(block, S3Block)
        tell(f"timing the candidates of block {number} of {n}")
        key = (x.shape, x.dtype, block.drop_path.drop_prob > 0)
        if key not in known:
            known[key] = tuple(_block_milliseconds(block, one, x, device) for one in candidates)
        blocks.append(known[key])
    tell("timing whole networks")
    rest, fixed = whole((NO_BLOCK,) * n), whole(fixed_slicing(n, network.n_dims))
    costs = StepCosts(candidates, rest, tuple(blocks), fixed, 0.0, measured_with(Cost(STEP, False), device))
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(CHECKED):
        architecture = tuple(rng.integers(0, len(candidates), size=n).tolist())
        found = whole(tuple(candidates[index] for index in architecture))
        errors.append(abs(costs.measure(architecture) - found) / found)
    return StepCosts(candidates, rest, costs.blocks, fixed, max(errors), costs.conditions)


def block_inputs(network: nn.Module, data: Tensor, device: torch.device) -> list[Tensor]:
    """What every block of a network reads in a pass over `data`."""
    seen: list[Tensor] = []
    positions = network.block_positions()  # type: ignore[operator]
    hooks = [block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for block in positions]
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=device.type == "cuda"):
            network(data)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _block_milliseconds(block: S3Block, candidate: Any, x: Tensor, device: torch.device) -> float:
    if candidate == NO_BLOCK:
        return 0.0
    block.set_candidate(candidate)
    return milliseconds(block, block, x.detach().requires_grad_(), device)
