"""A fold's trained supernet and the cases it is judged on: what the fitness of an architecture is measured with."""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunetv2_slicemamba.common.checkpoint_names import FINAL, UNFINISHED
from nnunetv2_slicemamba.common.hashing import sha256_of_names
from nnunetv2_slicemamba.search.evaluation.cost_measurement import CostMeter, measured_with, require_measurable
from nnunetv2_slicemamba.search.evaluation.counting import Classes
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathEvaluation
from nnunetv2_slicemamba.search.evaluation.windows import make_case
from nnunetv2_slicemamba.search.fitness import mean_foreground_dice
from nnunetv2_slicemamba.search.holdout import recorded_holdout
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.records import Done, Evaluation, Task, tasks_of
from nnunetv2_slicemamba.search.workers.base import More, no_more
from nnunetv2_slicemamba.slicing.candidates import Architecture
from nnunetv2_slicemamba.slicing.holdout_file import check_trained_with
from nnunetv2_slicemamba.slicing.measured_on import HOLDOUT, VALIDATION, MeasuredOn

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.selection import Selection

# how cases are predicted; part of the search's fingerprint
TILE_STEP_SIZE = 0.5
MIRRORING = False
PREDICTION = "batches of windows"


class SupernetError(ValueError):
    """The fold's supernet cannot be evaluated."""


@dataclass(frozen=True)
class ValidationCase:
    """data: (channels, *spatial) float32, preprocessed, with the previous stage's one-hot labels in a cascade.
    truth: (1, *spatial) integer labels."""

    name: str
    data: torch.Tensor
    truth: NDArray[np.integer]


def require_checkpoint(selection: Selection, trainer: str) -> Path:
    """The trained supernet of a fold; SupernetError naming the training command if there is none."""
    file = selection.fold_folder(trainer) / FINAL
    if file.is_file():
        return file
    command = (
        f"nnUNetv2_train {selection.dataset} {selection.configuration} {selection.fold} "
        f"-tr {trainer} -p {selection.plans_name}"
    )
    started = any((file.parent / name).is_file() for name in UNFINISHED)
    what = "its training is not finished: continue it with" if started else "train it first with"
    raise SupernetError(f"there is no trained supernet {file}; {what} '{command}{' --c' if started else ''}'")


class SupernetFold:
    """Evaluates architectures of one fold's supernet on the fold's validation cases, or on its holdout if it has one.

    selection: dataset, plans, configuration and fold. trainer: class name of the supernet's trainer. device: where to
    predict. cache_bytes: for features that architectures share, see PathEvaluation. cost: to measure of every
    architecture, after its evaluation; None for nothing. Loads checkpoint and cases once and
    keeps them. Whole cases are predicted, by sliding window where they are larger than the patch, without mirroring and
    without anything random: the same architecture gives the same fitness on the same machine, whatever was evaluated
    before it. A measured latency is not that repeatable.
    Raises InputError if the device cannot tell the cost; SupernetError if there is no trained supernet, or the fold has
    no validation cases; HoldoutError if the supernet was trained with another holdout than the fold has now, or with
    none.
    """

    def __init__(
        self,
        selection: Selection,
        trainer: str,
        device: torch.device,
        cache_bytes: int | None = None,
        cost: Cost | None = None,
    ) -> None:
        require_measurable(cost, device)
        self._cost = cost
        known = measured_with(cost, device)
        self._measured_with: dict[str, str] = {key: known[key] for key in ("device", "pytorch") if key in known}
        self.checkpoint = require_checkpoint(selection, trainer)
        self.trainer_name, self.device, self._cache_bytes = trainer, device, cache_bytes
        with quiet():
            self.nnunet_trainer = make_trainer(selection, trainer, device)
            _, keys = self.nnunet_trainer.do_split()
        if not keys:
            raise SupernetError(
                f"fold {selection.fold} of {selection.dataset} has no validation cases, so no architecture can be "
                f"compared; give the fold some in splits_final.json, or use 'slicemamba slicing --set'"
            )
        self.case_names: list[str] = list(keys)
        check_trained_with(
            recorded_holdout(self.checkpoint), self.nnunet_trainer.holdout, self.checkpoint.parent, trainer
        )
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
        from nnunetv2_slicemamba.nets import SliceMambaSupernet

        with quiet():
            self.nnunet_trainer.initialize()
        network = self.nnunet_trainer.network
        assert isinstance(network, SliceMambaSupernet)
        weights = torch.load(self.checkpoint, map_location="cpu", weights_only=False)["network_weights"]
        network.load_state_dict(weights)
        network.decoder.deep_supervision = False
        self.network = network.eval()
        patch = self.nnunet_trainer.configuration_manager.patch_size
        cases = [make_case(case.data, case.truth, patch, TILE_STEP_SIZE) for case in self.cases()]
        if self._cost is not None:
            self._meter = CostMeter(network, len(cases[0].data), patch, self.device, self._cost)
        self.evaluation = PathEvaluation(
            network,
            cases,
            Classes.of(self.label_manager),
            patch,
            self.device,
            self._cache_bytes,
        )
        self._loaded = True

    def cases(self) -> list[ValidationCase]:
        """The cases that decide the fitness, read anew."""
        return load_cases(self.nnunet_trainer, self.case_names)

    def __call__(self, architecture: Architecture) -> Evaluation:
        """Mean foreground Dice of the path over the cases, see search.fitness."""
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
                dice = mean_foreground_dice(path.counts)
                started = time.perf_counter()
                cost = None if self._cost is None else self._meter.measure(path.task.architecture)
                seconds = path.seconds + time.perf_counter() - started
                details: dict[str, Any] = {**dice.details(), **self._measured_with}
                yield Done(path.task, Evaluation(dice.fitness, details, cost), seconds)
        except torch.cuda.OutOfMemoryError as error:
            raise SupernetError(
                f"the memory of {self.device} does not suffice for one window of the supernet's patch size "
                f"{list(self.evaluation.patch)}; end other work on it, or give -device cpu"
            ) from error


def make_trainer(selection: Selection, trainer: str, device: torch.device) -> Any:
    """The nnU-Net trainer of a fold, which knows the split, the data's class and the labels; it writes no log."""
    from nnunetv2_slicemamba.trainers import TRAINERS

    # under the same name, which nnU-Net makes the result folder's
    silent = type(trainer, (TRAINERS[trainer],), {"print_to_log_file": lambda self, *args, **kwargs: None})
    return silent(
        # nnU-Net pops this key from the plans it is given
        plans={**selection.plans, "continue_training": True},
        configuration=selection.configuration,
        fold=selection.fold,
        dataset_json=json.loads((selection.preprocessed_folder / "dataset.json").read_text()),
        device=device,
    )


def require_supernet_trainer(trainer: str) -> None:
    """Raises SupernetError listing the supernet trainers unless `trainer` is one."""
    from nnunetv2_slicemamba.trainers import TRAINERS

    known = [name for name in TRAINERS if "Supernet" in name]
    if trainer not in known:
        raise SupernetError(f"{trainer!r} is no supernet trainer; give -tr one of {', '.join(known)}")


def load_cases(trainer: Any, keys: list[str]) -> list[ValidationCase]:
    """The preprocessed cases `keys`, in that order, in memory."""
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    dataset = trainer.dataset_class(
        trainer.preprocessed_dataset_folder,
        keys,
        folder_with_segs_from_previous_stage=trainer.folder_with_segs_from_previous_stage,
    )
    cases = []
    for key in keys:
        data, seg, previous, _ = dataset.load_case(key)
        array = np.asarray(data[:], dtype=np.float32)
        if trainer.is_cascaded:
            labels = trainer.label_manager.foreground_labels
            array = np.vstack((array, convert_labelmap_to_one_hot(previous[:], labels, output_dtype=array.dtype)))
        cases.append(ValidationCase(key, torch.from_numpy(array), np.asarray(seg[:])))
    return cases


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """nnU-Net prints citations and settings whenever a trainer or predictor is made."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
