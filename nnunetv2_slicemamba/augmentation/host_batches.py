"""Batches as nnU-Net's own transforms make them on the host, each from a seed of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunetv2_slicemamba.augmentation.seeds import generators_seeded
from nnunetv2_slicemamba.augmentation.workers import BatchWorkers

SeedOf = Callable[[int], np.random.SeedSequence]


class MakeBatch:
    """Makes a loader's batch from its number alone, by nnU-Net's loader and its transforms."""

    def __init__(self, loader: nnUNetDataLoader, seed_of: SeedOf) -> None:
        self.loader, self.seed_of, self.transforms = loader, seed_of, loader.transforms
        for part in parts(self.transforms):
            if isinstance(part, GaussianBlurTransform):
                # it measures which of two ways is faster, and their results differ in the last digits
                part.benchmark = False

    def __call__(self, number: int, place: int) -> Any:
        # transforms change as they are used: batches must not depend on those that the same process made before
        caches = [part._grid_cache for part in parts(self.transforms) if isinstance(part, SpatialTransform)]
        self.loader.transforms = copy.deepcopy(self.transforms, {id(cache): cache for cache in caches})
        with generators_seeded(self.seed_of(number)):
            return self.loader.generate_train_batch()


def parts(transform: Any) -> list[BasicTransform]:
    """A transform and all those that it is made of."""
    inner = [*getattr(transform, "transforms", ()), *filter(None, [getattr(transform, "transform", None)])]
    return [transform, *(part for one in inner for part in parts(one))]


class HostBatches:
    """Endless iterator over a loader's batches in the order of their numbers, as nnU-Net's trainers expect it."""

    def __init__(self, loader: nnUNetDataLoader, seed_of: SeedOf, first: int, processes: int) -> None:
        self.workers = BatchWorkers(MakeBatch(loader, seed_of), first, processes, max(1, 2 * processes))

    def __iter__(self) -> HostBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        _, place, batch = next(self.workers)
        self.workers.release(place)
        return batch

    def close(self) -> None:
        self.workers.close()
