"""Patches read into shared memory are those that nnU-Net's own loader makes of the same draws."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.augmentation.cases import cases_in_memory
from nnunetv2_slicemamba.augmentation.device_batches import DeviceBatches
from nnunetv2_slicemamba.augmentation.patches import fill, is_plain, make_slots, paste
from nnunetv2_slicemamba.augmentation.policy import Policy
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


def test_a_batch_of_kept_cases_is_the_same_and_loads_nothing(loader: nnUNetDataLoader, monkeypatch: Any) -> None:
    monkeypatch.setattr(loader._data, "load_case", lambda case, load=loader._data.load_case: with_previous(*load(case)))
    loaded, again = make_slots(loader, 2)
    kept = cases_in_memory(loader)
    with generators_seeded(sequence(5, Use.TRAINING_BATCHES, 0)):
        fill(loaded, loader, LABELS)
    monkeypatch.setattr(loader._data, "load_case", None)
    with generators_seeded(sequence(5, Use.TRAINING_BATCHES, 0)):
        fill(again, loader, LABELS, kept)
    assert torch.equal(again.data, loaded.data)
    assert torch.equal(again.seg, loaded.seg)


def test_all_cases_are_kept_or_none(loader: nnUNetDataLoader) -> None:
    kept = cases_in_memory(loader)
    assert list(kept) == list(loader.indices)
    needed = sum(case.bytes for case in kept.values())
    assert needed > sum(case.image.nbytes + case.seg.nbytes for case in kept.values())
    assert list(cases_in_memory(loader, needed)) == list(kept)
    assert cases_in_memory(loader, needed - 1) == {}


def test_cases_that_are_made_when_they_are_loaded_are_not_kept(loader: nnUNetDataLoader, monkeypatch: Any) -> None:
    def load(case: str, load: Any = loader._data.load_case) -> tuple[Any, ...]:
        data, seg, previous, properties = load(case)
        return np.asarray(data[:]) + np.random.random(), seg, previous, properties  # noqa: NPY002

    monkeypatch.setattr(loader._data, "load_case", load)
    assert cases_in_memory(loader) == {}


@pytest.mark.parametrize(("method", "processes", "keeps"), [("fork", 1, True), ("spawn", 1, False), ("spawn", 0, True)])
def test_cases_are_kept_where_processes_share_them(
    loader: nnUNetDataLoader, monkeypatch: Any, method: str, processes: int, keeps: bool
) -> None:
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: method)
    seed_of = partial(sequence, 5, Use.TRAINING_BATCHES)
    made = DeviceBatches(loader, Policy(()), LABELS, torch.device("cpu"), seed_of, 0, processes)
    made.close()
    assert bool(made.workers.make.kept) == keeps  # type: ignore[attr-defined]


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
