"""A fold's trained supernet and the cases it is judged on: what the fitness of an architecture is measured with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from nnunetv2_slicemamba.common.checkpoints import load_network, read_training
from nnunetv2_slicemamba.common.hashing import sha256_of_names, sha256_of_plans
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON
from nnunetv2_slicemamba.nets import Supernet
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.search.evaluation.cost_measurement import CostMeter, measured_with, require_measurable
from nnunetv2_slicemamba.search.evaluation.counting import Classes
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathEvaluation
from nnunetv2_slicemamba.search.evaluation.step_costs import STEP_COSTS_FILE, StepCosts, read_step_costs
from nnunetv2_slicemamba.search.evaluation.windows import make_case
from nnunetv2_slicemamba.search.fitness import evaluation_of_counts
from nnunetv2_slicemamba.search.holdout import recorded_init_args
from nnunetv2_slicemamba.search.objectives import STEP, Cost
from nnunetv2_slicemamba.search.records import Done, Evaluation, Task, tasks_of
from nnunetv2_slicemamba.search.workers.base import More, no_more
from nnunetv2_slicemamba.slicing.candidate_sets import check_trained_candidates
from nnunetv2_slicemamba.slicing.candidates import Architecture
from nnunetv2_slicemamba.slicing.holdout_file import check_trained_with, holdout_in
from nnunetv2_slicemamba.slicing.measured_on import HOLDOUT, VALIDATION, MeasuredOn
from nnunetv2_slicemamba.trainers.offline import ValidationCase, load_cases, make_trainer, quiet

# how cases are predicted; part of the search's fingerprint
TILE_STEP_SIZE = 0.5
MIRRORING = False
PREDICTION = "batches of windows"
_PLANS_REMEDY = (
    "It says with which plans the supernet was trained: restore it; nnUNet_preprocessed may have the same plans"
)


class SupernetError(ValueError):
    """The fold's supernet cannot be evaluated."""


def require_checkpoint(folder: SupernetFolder) -> Path:
    """The checkpoint of a fold's trained supernet; SupernetError naming the training command if there is none."""
    if folder.is_trained:
        return folder.checkpoint
    what = "its training is not finished: continue it with" if folder.is_in_training else "train it first with"
    raise SupernetError(f"there is no trained supernet {folder.checkpoint}; {what} '{folder.train_command}'")


def check_same_plans(folder: SupernetFolder) -> str:
    """SHA-256 of the plans; SupernetError unless they are those that the supernet was trained with."""
    selection = folder.selection
    now = sha256_of_plans(selection.plans, selection.configuration)
    if folder.plans_file.is_file():
        then = sha256_of_plans(PLANS_JSON.read(folder.plans_file, _PLANS_REMEDY), selection.configuration)
        if then != now:
            raise SupernetError(
                f"plans {selection.plans_name!r} in nnUNet_preprocessed (SHA-256 {now[:12]}...) are not those that the "
                f"supernet was trained with ({folder.plans_file}, {then[:12]}...); restore them, or move {folder.path} "
                "away and train the supernet anew"
            )
    return now


class SupernetFold:
    """Evaluates architectures of one fold's supernet on the fold's validation cases, or on its holdout if it has one.

    folder: of the fold's supernet. device: where to predict. cache_bytes: for features that architectures share, see
    PathEvaluation. cost: to measure of every architecture, after its evaluation; None for nothing. step_costs: the
    table of a step's cost, None to read it when it is needed. Loads checkpoint and cases once and keeps them. Whole
    cases are predicted, by sliding window where they are larger than the patch, without mirroring and without anything
    random: the same architecture gives the same fitness on the same machine, whatever was evaluated before it. A
    measured latency is not that repeatable. Raises InputError if the device cannot tell the cost; SupernetError if
    there is no trained supernet; CheckpointError if the checkpoint cannot be read, is damaged, or holds weights that
    are not finite; HoldoutError if the supernet was trained with another holdout than the fold has now, or with none.
    """

    def __init__(
        self,
        folder: SupernetFolder,
        device: torch.device,
        cache_bytes: int | None = None,
        cost: Cost | None = None,
        step_costs: StepCosts | None = None,
    ) -> None:
        self.step_costs = step_costs
        require_measurable(cost, device)
        self._cost = cost
        known = measured_with(cost, device)
        self._measured_with: dict[str, str] = {key: known[key] for key in ("device", "pytorch") if key in known}
        self.checkpoint = require_checkpoint(folder)
        self.folder, self.device, self._cache_bytes = folder, device, cache_bytes
        with quiet():
            self.nnunet_trainer = make_trainer(folder, device)
            _, keys = self.nnunet_trainer.do_split()
        self.case_names: list[str] = list(keys)
        recorded = recorded_init_args(self.checkpoint)
        check_trained_with(holdout_in(recorded), self.nnunet_trainer.holdout, folder.path, folder.trainer)
        check_trained_candidates(recorded, folder.selection.candidates, folder.path)
        self._remedy = f"restore the file, or move {folder.path} away and train the supernet anew"
        read_training(self.checkpoint, self._remedy)  # refused now, not by the first evaluation
        self.label_manager = self.nnunet_trainer.label_manager
        self._loaded = False

    @property
    def measured_on(self) -> MeasuredOn:
        """The cases that decide the fitness."""
        kind = VALIDATION if self.nnunet_trainer.holdout is None else HOLDOUT
        return MeasuredOn(kind, len(self.case_names), sha256_of_names(self.case_names))

    def load(self) -> None:
        """Builds the network and reads the cases, once; done by the first evaluation if not before."""
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # every thread has a current device of its own
        if self._loaded:
            return
        with quiet():
            self.nnunet_trainer.initialize()
        network = self.nnunet_trainer.network
        assert isinstance(network, Supernet)
        load_network(network, self.checkpoint, self._remedy)
        network.decoder.deep_supervision = False
        self.network = network.eval()
        patch = self.nnunet_trainer.configuration_manager.patch_size
        cases = [make_case(case.data, case.truth, patch, TILE_STEP_SIZE) for case in self.cases()]
        if self._cost is not None:
            self._meter = self._meter_of(self._cost, network, len(cases[0].data), patch)
        self.evaluation = PathEvaluation(
            network,
            cases,
            Classes.of(self.label_manager),
            patch,
            self.device,
            self._cache_bytes,
        )
        self._loaded = True

    def _meter_of(
        self, cost: Cost, network: Supernet, input_channels: int, patch: Sequence[int]
    ) -> CostMeter | StepCosts:
        if cost.kind != STEP:
            return CostMeter(network, input_channels, patch, self.device, cost)
        if self.step_costs is None:
            self.step_costs = read_step_costs(self.folder)
        if self.step_costs is None:
            raise SupernetError(
                f"there is no {self.folder.search / STEP_COSTS_FILE}, which the search's first process has measured; "
                "start all processes of the search again"
            )
        return self.step_costs

    def cases(self) -> list[ValidationCase]:
        """The cases that decide the fitness, read anew."""
        return load_cases(self.nnunet_trainer, self.case_names)

    def __call__(self, architecture: Architecture) -> Evaluation:
        """The fitness of the path over the cases, see search.fitness."""
        (done,) = self.evaluate(tasks_of([architecture]))
        return done.evaluation

    def evaluate(
        self,
        tasks: Sequence[Task],
        go_on: Callable[[], bool] = lambda: True,
        more: More = no_more,
    ) -> Iterator[Done]:
        """The tasks as they are finished, as long as go_on() holds.

        more: see BatchEvaluator. They share what they can, see PathEvaluation. Raises SupernetError if the device's
        memory does not suffice.
        """
        self.load()
        try:
            for path in self.evaluation.count_paths(tasks, go_on, more):
                found = evaluation_of_counts(path.counts)
                started = time.perf_counter()
                cost = None if self._cost is None else self._meter.measure(path.task.architecture)
                seconds = path.seconds + time.perf_counter() - started
                details = {**found.details, **self._measured_with}
                yield Done(path.task, replace(found, details=details, cost=cost), seconds)
        except torch.cuda.OutOfMemoryError as error:
            raise SupernetError(
                f"the memory of {self.device} does not suffice for one window of the supernet's patch size "
                f"{list(self.evaluation.patch)}; end other work on it, or give -device cpu"
            ) from error
