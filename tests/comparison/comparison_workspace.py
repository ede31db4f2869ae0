"""A dataset with plans and labels, and for each slicing what two trainings of it would leave."""

from __future__ import annotations

import json
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from PIL import Image

from nnunetv2_slicemamba.search import Slicing, SlicingChoice, SlicingFile, write_slicing_file

DATASET, PLANS, TRAINER = "Dataset931_Squares", "nnUNetSliceMambaSPlans", "SliceMambaTrainer_20epochs"
SUPERNET = "SliceMambaSupernetTrainer"
CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))
N_BLOCKS, N_CASES, REPEATS = 4, 6, 2
SEARCHED: Slicing = ((2, 2), (4, 4), (2, 4), (4, 2))
CASES = [f"case_{i}" for i in range(N_CASES)]


def random_slicing(seed: int) -> Slicing:
    return tuple(CANDIDATES[i] for i in np.random.default_rng(seed).integers(0, 4, size=N_BLOCKS))


# how many columns of a square's 20 a training with this slicing misses, on average
MISSED = {
    SEARCHED: 1.0,
    **{random_slicing(seed): missed for seed, missed in ((0, 2.0), (1, 4.0))},
    ((2, 2),) * N_BLOCKS: 3.0,
    ((4, 4),) * N_BLOCKS: 5.0,
}


def make_workspace(root: Path) -> Path:
    """Three nnU-Net folders below root, and root/prepared for stand_in_train."""
    preprocessed = root / "nnUNet_preprocessed" / DATASET
    truth = preprocessed / "gt_segmentations"
    truth.mkdir(parents=True)
    (root / "nnUNet_results").mkdir()
    for i, case in enumerate(CASES):
        _write(truth / f"{case}.png", 20 if i else 0)
    kwargs = {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "strides": [[4, 4], [2, 2]],
        "n_blocks_per_stage": [1, 1],
        "n_blocks_per_stage_decoder": [1, 1],
    }
    architecture = {
        "network_class_name": "nnunetv2_slicemamba.nets.unet.SliceMambaUNet",
        "arch_kwargs": kwargs,
        "_kw_requires_import": [],
    }
    configuration = {
        "data_identifier": "x",
        "batch_size": 2,
        "patch_size": [32, 32],
        "spacing": [1.0, 1.0],
        "architecture": architecture,
    }
    plans = {"dataset_name": DATASET, "plans_name": PLANS, "configurations": {"2d": configuration}}
    (preprocessed / f"{PLANS}.json").write_text(json.dumps(plans))
    (preprocessed / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "square": 1}, "file_ending": ".png"})
    )
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": CASES, "val": CASES}]))
    for number, (slicing, missed) in enumerate(MISSED.items()):
        prepare(root / "prepared", truth, slicing, missed, number)
    search(root, SEARCHED)
    return root


def key_of(slicing: Slicing) -> str:
    return "_".join("x".join(map(str, thickness)) for thickness in slicing)


def prepare(prepared: Path, truth: Path, slicing: Slicing, missed: float, seed: int) -> None:
    """The checkpoint of a slicing, and the evaluation of both its trainings' predictions."""
    folder = prepared / key_of(slicing)
    folder.mkdir(parents=True)
    weights = {"slicing": torch.tensor(slicing, dtype=torch.uint8), "weight": torch.ones(3)}
    torch.save({"network_weights": weights}, folder / "checkpoint.pth")
    rng = np.random.default_rng(seed)
    for repeat in range(REPEATS):
        output = folder / f"repeat_{repeat}"
        output.mkdir()
        for i, case in enumerate(CASES):
            width = 20 - missed - rng.integers(0, 3)
            _write(output / f"{case}.png", int(width) if i else 0)
        with pytest.MonkeyPatch.context() as patch:
            # its pool of processes would import torch anew every time; threads do the same work
            threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
            patch.setattr(evaluate_predictions, "multiprocessing", threads)
            evaluate_predictions.compute_metrics_on_folder(
                str(truth), str(output), str(output / "summary.json"), NaturalImage2DIO(), ".png", [1], None, 1
            )


def _write(file: Path, width: int) -> None:
    """A square of 20 rows and `width` columns; without any, both truth and prediction are empty and Dice undefined."""
    mask = np.zeros((32, 32), np.uint8)
    mask[4:24, 4 : 4 + width] = 1
    Image.fromarray(mask).save(file)


def search(root: Path, slicing: Slicing, how_chosen: str = "search", trainer: str = SUPERNET) -> Path:
    """best_slicing.json of fold 0."""
    folder = root / "nnUNet_results" / DATASET / f"{trainer}__{PLANS}__2d" / "fold_0" / "slicing_search"
    architecture = tuple(CANDIDATES.index(thickness) for thickness in slicing)
    choice = SlicingChoice(slicing, how_chosen, architecture, fitness=0.9 if how_chosen == "search" else None)
    content = SlicingFile(choice, CANDIDATES, None, DATASET, "2d", PLANS, 0, "a" * 64, "b" * 64)
    write_slicing_file(content, folder / "best_slicing.json")
    return folder / "best_slicing.json"


def calls(root: Path) -> list[str]:
    """Calls of the stand-in, e.g. "2x2/repeat_0 --c"."""
    file = root / "prepared" / "calls.txt"
    return [line.strip() for line in file.read_text().splitlines()] if file.is_file() else []
