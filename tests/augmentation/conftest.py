"""Batches of real patches: photographs of cells in colours, volumes of the hippocampus, whole and in thick slices."""

from __future__ import annotations

from collections.abc import Callable

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from nnunetv2_slicemamba.augmentation import Batch
from nnunetv2_slicemamba.demo.layout import DATA

SIZES = {"2d": (75, 75), "2d odd": (61, 83), "3d": (33, 40, 37), "thick slices": (9, 40, 37)}
KINDS = tuple(SIZES)


def cell_image(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A fluorescence image and its nuclei, which carry 1 or 2 by turns."""
    folder = DATA / "nuclei2d"
    image = np.asarray(Image.open(folder / "imagesTr" / f"nuclei_{index:03d}_0000.png")).astype(np.float32)
    nuclei, _ = ndimage.label(np.asarray(Image.open(folder / "labelsTr" / f"nuclei_{index:03d}.png")) > 0)
    return image, np.where(nuclei > 0, 1 + nuclei % 2, 0)


def volume(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A magnetic resonance volume and its parts 1 and 2."""
    file = sorted((DATA / "hippocampus3d" / "labelsTr").glob("*.nii.gz"))[index]
    image = nibabel.load(DATA / "hippocampus3d" / "imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz"))
    return np.asarray(image.dataobj).astype(np.float32), np.asarray(nibabel.load(file).dataobj).astype(int)


def patch(array: np.ndarray, size: tuple[int, ...], outside: float) -> np.ndarray:
    """The first voxels of an array, which is continued by `outside` where it is too small."""
    cut = array[tuple(slice(s) for s in size)]
    return np.pad(cut, [(0, s - c) for s, c in zip(size, cut.shape, strict=True)], constant_values=outside)


@pytest.fixture(scope="session")
def real_batch() -> Callable[..., Batch]:
    """real_batch(kind, samples=3, channels=2, previous=False): normalised patches; labels are -1 outside the image.

    previous: whether a second channel of the segmentation holds a first stage's prediction.
    """

    def make(kind: str, samples: int = 3, channels: int = 2, previous: bool = False) -> Batch:
        size = SIZES[kind]
        images, segs = [], []
        for i in range(samples):
            image, seg = cell_image(i) if len(size) == 2 else volume(i)
            if kind == "thick slices":
                image, seg = image[::3], seg[::3]
            image = (image - image.mean()) / image.std()
            others = [ndimage.gaussian_filter(image, c / 2) * (-1) ** c for c in range(channels)]
            images.append(np.stack([patch(other, size, 0) for other in others]))
            both = [seg, np.roll(seg, 2, axis=-1)] if previous else [seg]
            segs.append(np.stack([patch(s, size, -1) for s in both]))
        data = torch.from_numpy(np.stack(images)).float()
        return Batch(data, torch.from_numpy(np.stack(segs)).to(torch.int16))

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of images, volumes or thick slices."""
    return request.param


@pytest.fixture
def by_sample() -> Callable[..., Batch]:
    """by_sample(batch, apply): a batch made of apply(index, image, segmentation) of each sample's own copies."""

    def run(batch: Batch, apply: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Batch:
        done = [
            apply(i, data.clone(), seg.clone()) for i, (data, seg) in enumerate(zip(batch.data, batch.seg, strict=True))
        ]
        return Batch(torch.stack([d for d, _ in done]), torch.stack([s for _, s in done]))

    return run


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """assert_close(got, expected, before): equal within a thousandth of the intensity range, much closer on average."""

    def check(got: torch.Tensor, expected: torch.Tensor, before: torch.Tensor) -> None:
        extent = float(before.max() - before.min())
        assert got.shape == expected.shape
        difference = (got - expected).abs()
        assert float(difference.max()) < 1e-3 * extent
        assert float(difference.mean()) < 1e-5 * extent

    return check
