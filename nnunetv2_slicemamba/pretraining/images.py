"""Images of a training: where they are, and the order and augmentation in which it sees them.

Everything random is a function of the seed, the epoch and the image (or, in shards, the worker): a training that was
stopped goes on with the very images that were next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pretraining.processes import Processes
from nnunetv2_slicemamba.pretraining.recipe import Recipe

TRAIN, VALIDATION = ("train", "training"), ("val", "validation")


def state_from(*numbers: int) -> int:
    """A seed of 63 bits that depends on all of some non-negative numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def reseed(*numbers: int) -> None:
    """Seeds Python's, numpy's and torch's generators from some non-negative numbers."""
    state = state_from(*numbers)
    random.seed(state)
    np.random.seed(state % 2**32)  # noqa: NPY002 - timm draws from it
    torch.manual_seed(state)


@dataclass(frozen=True)
class Shards:
    """Webdataset shards, in timm's notation: "name-{000..123}.tar|number of images", or a split of _info.json."""

    train: str
    validation: str
    classes: int


@dataclass(frozen=True)
class Images:
    """Place and number of the images.

    shards: None for folders, one per class, below train/ and val/. classes: their number.
    """

    root: Path
    classes: int
    n_train: int
    n_validation: int
    shards: Shards | None = None


def find_images(root: Path, shards: Shards | None = None) -> Images:
    """The images in ImageNet's layout, root/train/CLASS/* and root/val/CLASS/*, or at shards.

    Raises InputError for folders that are missing or empty, or classes that differ.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the folder that holds train/ and val/")
    if shards is not None:
        train, validation = (dataset_of(root, shards, part) for part in (True, False))
        return Images(root, shards.classes, train.reader.num_samples, validation.reader.num_samples, shards)
    names: dict[str, list[str]] = {}
    for synonyms in (TRAIN, VALIDATION):
        found = [root / name for name in synonyms if (root / name).is_dir()]
        if not found:
            raise InputError(
                f"{root} has no folder {synonyms[0]}/; ImageNet's layout is {root}/train/CLASS/... and "
                f"{root}/val/CLASS/..., for webdataset shards give --train-shards, --val-shards and --classes"
            )
        names[synonyms[0]] = sorted(path.name for path in found[0].iterdir() if path.is_dir())
    train_classes, validation_classes = names.values()
    if train_classes != validation_classes:
        only = {
            k: sorted(set(a) - set(b))[:5]
            for k, a, b in (("train", *names.values()), ("val", *reversed(names.values())))
        }
        raise InputError(
            f"{root}: train/ and val/ have other classes; only in train: {only['train']}, in val: {only['val']}"
        )
    if len(train_classes) < 2:
        raise InputError(f"{root}/train has {len(train_classes)} classes, a classifier needs two or more")
    train, validation = (dataset_of(root, None, part) for part in (True, False))
    counted = {target for _, target in train.reader.samples}
    if len(counted) != len(train_classes):
        raise InputError(f"{root}/train: {len(train_classes) - len(counted)} classes have no images")
    return Images(root, len(train_classes), len(train), len(validation))


def dataset_of(root: Path, shards: Shards | None, training: bool, batch_size: int = 1) -> Any:
    """timm's dataset of the training or validation images; shards are cut into whole batches."""
    from timm.data import create_dataset

    if shards is None:
        try:
            return create_dataset("", root=str(root), split="train" if training else "validation", is_training=training)
        except RuntimeError as error:
            raise InputError(str(error)) from error
    split = shards.train if training else shards.validation
    try:
        return create_dataset("wds/", root=str(root), split=split, is_training=training, batch_size=batch_size)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"the shards {split!r} in {root} cannot be used: {error}") from error


class SeededImages(Dataset):
    """timm's dataset with augmentation that depends on the seed, the epoch and the image's index alone."""

    def __init__(self, dataset: Any, seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        reseed(1, self.seed, self.epoch, index)
        return self.dataset[index]


class Loading:
    """Batches (uint8 images (B, 3, size, size), classes (B,)) of this process.

    steps_per_epoch: with what is left over at an epoch's end left out. Raises InputError for fewer images than a step
    needs.
    """

    def __init__(self, images: Images, recipe: Recipe, processes: Processes, workers: int) -> None:
        self.images, self.recipe, self.processes, self.workers = images, recipe, processes, workers
        self.images_per_step = recipe.batch_size * recipe.accumulate * processes.world
        self.steps_per_epoch = images.n_train // self.images_per_step
        if self.steps_per_epoch < 1:
            raise InputError(
                f"there are {images.n_train} training images, a step needs {self.images_per_step}; give a smaller "
                "--batch-size"
            )
        self._training, self._validation = (
            dataset_of(images.root, images.shards, part, recipe.batch_size) for part in (True, False)
        )
        self._training.transform, self._validation.transform = transforms(recipe)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from a step of it on, recipe.accumulate for each step."""
        from timm.data.loader import fast_collate

        recipe, rank = self.recipe, self.processes.rank
        first, count = first_step * recipe.accumulate, self.steps_per_epoch * recipe.accumulate
        common: dict[str, Any] = {
            "num_workers": self.workers,
            "collate_fn": fast_collate,
            "pin_memory": self.processes.device.type == "cuda",
        }
        if self.images.shards is None:
            batches = self.order(epoch)[first:]
            seeded = SeededImages(self._training, recipe.seed, epoch)
            yield from DataLoader(seeded, batch_sampler=batches, **common)
            return
        self._training.set_epoch(epoch)
        # a fresh worker draws from its own seed, this process from what the steps left
        common["num_workers"] = max(1, self.workers)
        self._training.set_loader_cfg(num_workers=common["num_workers"])
        generator = torch.Generator().manual_seed(state_from(2, recipe.seed, epoch, rank))
        loader = DataLoader(
            self._training, recipe.batch_size, generator=generator, worker_init_fn=seed_worker, drop_last=True, **common
        )
        yielded = first
        # shards cannot be entered in the middle: what was seen is read again and left out
        for batch in islice(loader, first, count):
            yielded += 1
            yield batch
        if yielded < count:
            raise InputError(
                f"the shards gave {yielded} batches in an epoch, {count} were expected; is their number right?"
            )

    def order(self, epoch: int) -> list[list[int]]:
        """Indices (batches, batch size) of the images of this process.

        A step has the same images for any number of processes that share it.
        """
        shuffled = np.random.default_rng([self.recipe.seed, epoch]).permutation(self.images.n_train)
        used = shuffled[: self.steps_per_epoch * self.images_per_step]
        shape = (self.steps_per_epoch, self.recipe.accumulate, self.processes.world, self.recipe.batch_size)
        return used.reshape(shape)[:, :, self.processes.rank].reshape(-1, self.recipe.batch_size).tolist()

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the validation images, each of which is seen once."""
        from timm.data.loader import fast_collate

        dataset: Any = self._validation
        if self.images.shards is None:
            dataset = torch.utils.data.Subset(dataset, range(self.processes.rank, len(dataset), self.processes.world))
        yield from DataLoader(
            dataset, self.recipe.batch_size, num_workers=self.workers, collate_fn=fast_collate, drop_last=False
        )


def seed_worker(worker: int) -> None:
    """Seeds Python's and numpy's generators of a worker from torch's, which the loader has seeded."""
    state = torch.initial_seed()
    random.seed(state)
    np.random.seed(state % 2**32)  # noqa: NPY002 - timm draws from it


def posterize(image: Image.Image, bits: int, **unused: Any) -> Image.Image:
    """Posterisation to the highest bits of each channel; RandAugment also draws 0, which Pillow now refuses."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits >= 1 else Image.new(image.mode, image.size)


def transforms(recipe: Recipe) -> tuple[Any, Any]:
    """timm's transforms for training and for validation; both end in uint8, normalisation follows on the device."""
    from timm.data import create_transform

    size = (3, recipe.image_size, recipe.image_size)
    train = create_transform(
        size,
        is_training=True,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.random_augment or None,
        interpolation=recipe.interpolation,
        use_prefetcher=True,
    )
    for step in train.transforms:
        for operation in getattr(step, "ops", []):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = posterize
    validation = create_transform(
        size, interpolation=recipe.interpolation, crop_pct=recipe.crop_fraction, use_prefetcher=True
    )
    return train, validation
