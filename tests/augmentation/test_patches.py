"""Patches read into shared memory are those that nnU-Net's own loader makes of the same draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.augmentation.patches import fill, is_plain, make_slots, paste
from nnunetv2_slicemamba.augmentation.seeds import Use, generators_seeded, sequence

LABELS = (-1, 0, 1)
NAMES = {"2d": ("Dataset901_Disks", "2d"), "3d": ("Dataset902_Slabs", "3d_fullres")}


@pytest.fixture(
    params=[("2d", (32, 40), (28, 36)), ("2d", (51, 37), (32, 32)), ("3d", (13, 41, 50), (9, 32, 37))], ids=str
)
def loader(request: pytest.FixtureRequest, planned: Path) -> nnUNetDataLoader:
    """nnU-Net's loader with patches that lie partly beyond their cases."""
    kind, initial, final = request.param
    name, configuration = NAMES[kind]
    folder = planned / "nnUNet_preprocessed" / name
    plans = PlansManager(str(folder / "nnUNetSliceMambaSPlans.json"))
    cases = str(folder / plans.get_configuration(configuration).data_identifier)
    labels = plans.get_label_manager(json.loads((folder / "dataset.json").read_text()))
    return nnUNetDataLoader(infer_dataset_class(cases)(cases), 4, initial, final, labels, 0.5)


@pytest.mark.parametrize("number", range(3))
def test_a_filled_slot_is_nnunets_batch(loader: nnUNetDataLoader, number: int) -> None:
    (slot,) = make_slots(loader, 1)
    slot.data.fill_(torch.nan)
    with generators_seeded(sequence(5, Use.TRAINING_BATCHES, number)):
        expected = loader.generate_train_batch()
    with generators_seeded(sequence(5, Use.TRAINING_BATCHES, number)):
        cases = fill(slot, loader, LABELS)
    assert cases == list(expected["keys"])
    assert torch.equal(slot.data, expected["data"])
    assert torch.equal(slot.seg, expected["target"])
    assert slot.seg.dtype == expected["target"].dtype
    assert slot.data.is_shared()


def test_labels_that_dataset_json_does_not_name_are_refused(loader: nnUNetDataLoader) -> None:
    (slot,) = make_slots(loader, 1)
    with (
        generators_seeded(sequence(0, Use.STEPS)),
        pytest.raises(ValueError, match="to 1, dataset.json only those from"),
    ):
        fill(slot, loader, (-1, 0))


def test_a_first_stages_prediction_is_the_second_channel(loader: nnUNetDataLoader, monkeypatch: Any) -> None:
    load = loader._data.load_case
    monkeypatch.setattr(loader._data, "load_case", lambda case: with_previous(*load(case)))
    (slot,) = make_slots(loader, 1)
    assert slot.seg.shape[1] == 2
    with generators_seeded(sequence(0, Use.STEPS)):
        fill(slot, loader, LABELS)
    assert torch.equal(slot.seg[:, 0], slot.seg[:, 1])


def with_previous(data: Any, seg: Any, previous: None, properties: dict) -> tuple[Any, ...]:
    return data, seg, seg[:][0], properties


@pytest.mark.parametrize("corner", [(-3, 2), (4, 4), (0, 0), (-2, -1), (5, -4)])
def test_pasting(corner: tuple[int, int]) -> None:
    source = np.arange(60).reshape(1, 6, 10)
    target = np.full((1, 4, 7), 99)
    paste(target, source, corner, -1)
    padded = np.pad(source, ((0, 0), (20, 20), (20, 20)), constant_values=-1)
    y, x = corner[0] + 20, corner[1] + 20
    assert (target == padded[:, y : y + 4, x : x + 7]).all()


def test_loaders_with_batches_of_their_own_are_not_plain(loader: nnUNetDataLoader) -> None:
    class Other(nnUNetDataLoader):
        def generate_train_batch(self) -> dict:
            return {}

    assert is_plain(loader)
    loader.__class__ = Other
    assert not is_plain(loader)
    assert not is_plain(object())
