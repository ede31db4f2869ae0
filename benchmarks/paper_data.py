"""Images of the published experiment on a device: which of them train and test, and the published augmentation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nnunetv2_slicemamba.datasets.converters import clinicdb, kvasir

SPLIT_SEED = 2017
TRAINING_SHARE = 0.7  # of ISIC 2017, as VM-UNet divides it
SEARCH_SHARE = 0.2  # of the training images, which judge the supernet's paths and do not train them
POLYPS = {"kvasir": kvasir.TEST, "clinicdb": clinicdb.TEST}
DATA = ("isic2017", "polyps")
Case = tuple[str, str]  # folder of the suite, name of the image


@dataclass(frozen=True)
class Split:
    """Training cases, and test cases by the name of their table."""

    train: list[Case]
    tests: dict[str, list[Case]]

    def for_search(self) -> Split:
        """The supernet's: a seeded part of the training cases, the rest judges the paths. No test case is in it."""
        held_out, rest = _divided(self.train, SEARCH_SHARE)
        return Split(rest, {"search": held_out})


def split_of(suite: Path, data: str) -> Split:
    """ISIC 2017: 7:3, drawn with SPLIT_SEED. Polyps: the polyp benchmark's test images, and all others.

    suite: folder with a folder of `images` and `masks` for each source. Raises ValueError for a source without images.
    """
    if data == "isic2017":
        train, test = _divided(_cases(suite, data), TRAINING_SHARE)
        return Split(train, {data: test})
    found = {source: _cases(suite, source) for source in POLYPS}
    tests = {source: [case for case in cases if case[1] in POLYPS[source]] for source, cases in found.items()}
    train = [case for source, cases in found.items() for case in cases if case[1] not in POLYPS[source]]
    return Split(train, tests)


def _cases(suite: Path, source: str) -> list[Case]:
    names = sorted(file.stem for file in (suite / source / "images").glob("*.jpg"))
    if not names:
        raise ValueError(f"{suite / source / 'images'} has no .jpg images; give the folder of the suite with --suite")
    return [(source, name) for name in names]


def _divided(cases: Sequence[Case], share: float) -> tuple[list[Case], list[Case]]:
    """A seeded share of the cases and the others, both sorted."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(cases))
    n = round(share * len(cases))
    one, other = (sorted(cases[i] for i in part) for part in (order[:n], order[n:]))
    return one, other


@dataclass(frozen=True)
class Images:
    """Cases on a device. pixels: (n, 3, size, size) uint8. masks: (n, 1, size, size) bool."""

    pixels: Tensor
    masks: Tensor

    @classmethod
    def read(cls, suite: Path, cases: Sequence[Case], size: int, device: torch.device) -> Images:
        """Images and masks resized to a square. A mask is foreground above 127."""

        def read(case: Case) -> tuple[Tensor, Tensor]:
            source, name = case
            with Image.open(suite / source / "images" / f"{name}.jpg") as file:
                image = file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            with Image.open(suite / source / "masks" / f"{name}.png") as file:
                mask = file.convert("L").resize((size, size), Image.Resampling.NEAREST)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(np.array(mask) > 127)[None]

        with ThreadPoolExecutor() as pool:
            pixels, masks = zip(*pool.map(read, cases), strict=True)
        return cls(torch.stack(pixels).to(device), torch.stack(masks).to(device))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, size, size), each stretched to 0..255 as published, and masks (B, 1, size, size), float32."""
        chosen = indices.to(self.pixels.device)
        pixels = self.pixels[chosen].float()
        low, high = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
        return 255 * (pixels - low) / (high - low).clamp(min=1), self.masks[chosen].float()


def augmented(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both flips and a rotation by any angle, each with probability 1/2, drawn on the CPU.

    The nearest pixel counts and what comes in from outside is 0, as published. There, one angle is drawn for a whole
    training; here, each image has its own.
    """
    n = len(images)
    drawn = torch.rand(4, n, generator=generator)
    flips = 1 - 2 * (drawn[:2] < 0.5).float()
    angle = 2 * math.pi * drawn[3] * (drawn[2] < 0.5)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    rows = [
        torch.stack([cos * flips[0], -sin * flips[1], zero], 1),
        torch.stack([sin * flips[0], cos * flips[1], zero], 1),
    ]
    both = torch.cat([images, masks], 1)
    grid = F.affine_grid(torch.stack(rows, 1).to(both.device), list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved[:, :-1], moved[:, -1:]


def lay_out(suite: Path, target: Path) -> None:
    """Folders of images, masks and split.json in `target` for accuracy.py: the same cases in nnU-Net's protocol."""

    for data in DATA:
        split = split_of(suite, data)
        test = [case for cases in split.tests.values() for case in cases]
        for kind, ending in (("images", ".jpg"), ("masks", ".png")):
            (target / data / kind).mkdir(parents=True, exist_ok=True)
            for source, name in (*split.train, *test):
                link = target / data / kind / f"{name}{ending}"
                if not link.is_symlink():
                    link.symlink_to((suite / source / kind / f"{name}{ending}").resolve())
        names = {"train": [name for _, name in split.train], "val": [name for _, name in test]}
        (target / data / "split.json").write_text(json.dumps(names))
