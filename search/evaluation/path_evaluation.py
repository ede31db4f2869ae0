"""Evaluation of many paths of one supernet together, for speed.

All cases stay on the device. Their windows are predicted in batches, block by block; what a path shares with the one
before it is not computed again, and the voxels are counted on the device, so that one small tensor per path comes back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_slicemamba.nets import Supernet
from nnunetv2_slicemamba.search.evaluation.blockwise import BlockwiseSupernet
from nnunetv2_slicemamba.search.evaluation.counting import Classes, count, segmentation_of
from nnunetv2_slicemamba.search.evaluation.prefix_cache import Features, PrefixCache
from nnunetv2_slicemamba.search.evaluation.windows import Case, make_batches, stack
from nnunetv2_slicemamba.search.records import Task
from nnunetv2_slicemamba.search.workers.base import More, no_more
from nnunetv2_slicemamba.slicing.candidates import Architecture

# Voxels of all windows in a batch: a GPU is busy with them, a CPU's caches are not too small for them.
BATCH_VOXELS = {"cuda": 2**23}
BATCH_VOXELS_ELSEWHERE = 2**19
# Share of the GPU's free memory that kept features may take; elsewhere, bytes.
CACHE_SHARE, CACHE_BYTES = 0.25, 2 * 2**30
ALL = slice(None)


@dataclass(frozen=True)
class PathCounts:
    """The counted voxels of a task's path.

    counts: (cases, classes, 3) int64, see fitness.dice_per_case. seconds: what it took.
    """

    task: Task
    counts: NDArray[np.int64]
    seconds: float


class PathEvaluation:
    """Counts voxels of a supernet's paths on the same cases, see count_paths.

    network: in evaluation mode, on the device. cases: in the order of the counts. patch: size of the windows.
    cache_bytes: for features that paths share; None stands for a quarter of the GPU's free memory, 2 GiB elsewhere,
    and 0 for none. Counts do not depend on it, nor on what was evaluated before.
    """

    def __init__(
        self,
        network: Supernet,
        cases: Sequence[Case],
        classes: Classes,
        patch: Sequence[int],
        device: torch.device,
        cache_bytes: int | None = None,
    ) -> None:
        self.device = device
        self.blockwise = BlockwiseSupernet(network)
        self.blocks_computed = 0
        self._had_too_little_memory = False
        self._classes = classes
        self.patch = tuple(patch)
        voxels = BATCH_VOXELS.get(device.type, BATCH_VOXELS_ELSEWHERE)
        self._batch_size = max(1, voxels // int(np.prod(self.patch)))
        self._cases = self._placed(cases)
        self.cache = PrefixCache(self._cache_bytes() if cache_bytes is None else cache_bytes)
        self._make_batches()

    def count_paths(
        self,
        tasks: Sequence[Task],
        go_on: Callable[[], bool] = lambda: True,
        more: More = no_more,
    ) -> Iterator[PathCounts]:
        """Counts the tasks' paths, those with the same first blocks after one another, as long as go_on() holds.

        more: gives further ones when all these have been begun, and is asked again until it gives none.
        On a GPU a result comes when the next path has been sent to it, which so never waits. What was begun is given
        before the iteration ends; closing it early loses at most that one.
        """
        before: tuple[Task, _Pending] | None = None
        started = time.perf_counter()
        for task in self._in_order(tasks, more):
            if not go_on():
                break
            pending = self._send(task.architecture)
            if before is not None:
                yield PathCounts(before[0], before[1].wait(), time.perf_counter() - started)
                started = time.perf_counter()
            before = (task, pending)
            if self.device.type != "cuda":
                yield PathCounts(task, pending.wait(), time.perf_counter() - started)
                started = time.perf_counter()
                before = None
        if before is not None:
            yield PathCounts(before[0], before[1].wait(), time.perf_counter() - started)
        self.cache.expect(())

    def _in_order(self, tasks: Sequence[Task], more: More) -> Iterator[Task]:
        """The tasks in the order in which their architectures share most."""
        while tasks:
            ordered = sorted(tasks, key=lambda task: task.architecture)
            self.cache.expect(task.architecture for task in ordered)
            yield from ordered
            tasks = more()

    def _send(self, architecture: Architecture) -> _Pending:
        while True:
            try:
                return _Pending(self._count(architecture))
            except torch.cuda.OutOfMemoryError:
                if self._batch_size == 1 and self.cache.capacity == 0:
                    raise
            # not before the error, which holds what was computed, is gone
            self._use_less_memory()

    def _use_less_memory(self) -> None:
        """First with fewer kept features, then with none, then with smaller batches."""
        self.cache.clear()
        if self.cache.capacity:
            self.cache.capacity = 0 if self._had_too_little_memory else self.cache.capacity // 4
        else:
            self._batch_size = max(1, self._batch_size // 2)
            self._make_batches()
        self._had_too_little_memory = True
        torch.cuda.empty_cache()

    @torch.inference_mode()
    def _count(self, architecture: Architecture) -> Tensor:
        shape = (len(self._cases), len(self._classes.foreground), 3)
        counts = torch.zeros(shape, dtype=torch.int64, device=self.device)
        unfinished = _Stitched(self._cases, self._classes, self.device)
        with autocast_on(self.device):
            for number, batch in enumerate(self._batches):
                logits = self.blockwise.finish(self._features(number, architecture))
                patch = (ALL, ALL, *(slice(size) for size in self.patch))
                logits = logits[patch]
                if not batch.whole:
                    for (case, window), own in zip(batch.windows, logits, strict=True):
                        unfinished.add(case, window, own, counts)
                    continue
                crop = (ALL, ALL, *self._cases[batch.windows[0][0]].crop[-len(self.patch) :])
                predicted = segmentation_of(logits[crop], self._classes)
                counts[self._rows[number]] = count(predicted, self._truths[number], self._classes)
        return counts

    def _features(self, number: int, architecture: Architecture) -> Features:
        """The features of a batch behind the last block, from the longest prefix that is kept."""
        length, features = self.cache.longest(number, architecture)
        if features is None:
            batch = self._batches[number]
            data = stack(self._cases, batch, self.device, self.blockwise.network.total_stride)
            features = self.blockwise.begin(data)
            self.cache.keep(number, (), features)
        for block in range(length, len(architecture)):
            features = self.blockwise.block(block, architecture[block], features)
            self.blocks_computed += 1
            prefix = architecture[: block + 1]
            # the decoder's features are large and rarely shared
            if block < self.blockwise.n_encoder_blocks or self.cache.is_expected(prefix):
                self.cache.keep(number, prefix, features)
        return features

    def _make_batches(self) -> None:
        self._batches = make_batches(self._cases, self._batch_size)
        self._truths: dict[int, Tensor] = {}
        self._rows: dict[int, Tensor] = {}
        for number, batch in enumerate(self._batches):
            if batch.whole:
                rows = [case for case, _ in batch.windows]
                truths = torch.stack([self._cases[case].truth for case in rows]).to(self.device)
                # a 2D image of a 2D network has an axis of one slice that its windows lack
                self._truths[number] = truths.reshape(len(rows), *truths.shape[-len(self.patch) :])
                self._rows[number] = torch.tensor(rows, device=self.device)

    def _placed(self, cases: Sequence[Case]) -> list[Case]:
        """The cases on the device; in pinned memory where they would fill half of a GPU."""
        if self.device.type == "cuda":
            total = sum(t.numel() * t.element_size() for case in cases for t in (case.data, case.truth))
            if total > torch.cuda.mem_get_info(self.device)[0] // 2:
                return [Case(c.data.pin_memory(), c.truth.pin_memory(), c.crop, c.windows) for c in cases]
        return [Case(c.data.to(self.device), c.truth.to(self.device), c.crop, c.windows) for c in cases]

    def _cache_bytes(self) -> int:
        if self.device.type != "cuda":
            return CACHE_BYTES
        return int(CACHE_SHARE * torch.cuda.mem_get_info(self.device)[0])


def autocast_on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast as nnU-Net predicts with: elsewhere than on a GPU it is slow or missing."""
    return torch.autocast("cuda") if device.type == "cuda" else contextlib.nullcontext()


class _Pending:
    """Counts on their way from the device."""

    def __init__(self, counts: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._counts = counts
        if counts.is_cuda:
            self._counts = torch.empty(counts.shape, dtype=counts.dtype, pin_memory=True)
            self._counts.copy_(counts, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> NDArray[np.int64]:
        if self._event is not None:
            self._event.synchronize()
        return self._counts.numpy()


class _Stitched:
    """The case whose windows are being added up; windows come in the order of the cases."""

    def __init__(self, cases: Sequence[Case], classes: Classes, device: torch.device) -> None:
        self._cases, self._classes, self._device = cases, classes, device
        self._sum: Tensor | None = None
        self._weight: Tensor | None = None

    def add(self, number: int, window: int, logits: Tensor, counts: Tensor) -> None:
        """logits: (heads, *patch). The last window of a case writes its counts."""
        case = self._cases[number]
        if self._sum is None:
            shape = (logits.shape[0], *case.data.shape[1:])
            self._sum = torch.zeros(shape, dtype=torch.float32, device=self._device)
        place = (ALL, *case.windows[window])
        self._sum[place] += logits * self._gaussian(tuple(logits.shape[1:]))
        if window == len(case.windows) - 1:
            crop = (None, ALL, *case.crop)
            predicted = segmentation_of(self._sum[crop], self._classes)
            counts[number] = count(predicted, case.truth.to(self._device)[None], self._classes)[0]
            self._sum = None

    def _gaussian(self, patch: tuple[int, ...]) -> Tensor:
        """nnU-Net's weights; what they add up to at a voxel changes no decision there."""
        if self._weight is None:
            from nnunetv2.inference.sliding_window_prediction import compute_gaussian

            self._weight = compute_gaussian(
                patch, sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float32, device=self._device
            )
        return self._weight
