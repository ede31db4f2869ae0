"""Result trees in nnU-Net's real formats, made of the shipped images without training anything."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from PIL import Image
from scipy.ndimage import binary_dilation

from nnunetv2_slicemamba.demo.layout import DATASETS, lay_out
from nnunetv2_slicemamba.nets import SliceMambaUNet
from nnunetv2_slicemamba.search import (
    FITNESS_DEFINITION,
    Architecture,
    Evaluation,
    Fingerprint,
    SearchSettings,
    SlicingChoice,
    SlicingFile,
    open_ledger,
    run_search,
    slicing_search_folder,
    write_slicing_file,
)

# of the reports that tests make
DAY = datetime.date(2026, 1, 2)
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
PLANS = "nnUNetSliceMambaSPlans"
SUPERNET, FINAL, STOCK = "SliceMambaSupernetTrainer_5epochs", "SliceMambaTrainer_5epochs", "nnUNetTrainer"
SETTINGS = SearchSettings(population=6, generations=3, parents=2)
N_CASES = {"2d": 12, "3d": 8}


@dataclass(frozen=True)
class Tree:
    """A result tree under construction; every method adds one stage and needs those before it."""

    root: Path
    kind: str
    # of dataset.json, None for the shipped dataset's; lists make regions
    labels: Mapping[str, int | Sequence[int]] | None = None
    n_folds: int = 2
    rgb: bool = False
    # an Optuna URL for the searches, None for a file beside each
    storage: str | None = None
    # of all blocks; None for slicings that differ from block to block
    thickness: tuple[int, ...] | None = None

    @property
    def shipped(self):
        return DATASETS[self.kind]

    @property
    def number(self) -> str:
        return str(self.shipped.dataset_id)

    @property
    def configuration(self) -> str:
        return self.shipped.configuration

    def folder(self, variable: str) -> Path:
        return self.root / variable / self.shipped.folder_name

    @property
    def kwargs(self) -> dict:
        n = int(self.kind[0])
        strides = [[2] * n, [2] * n, [2] * n]
        blocks = {"n_blocks_per_stage": [1, 4, 1], "n_blocks_per_stage_decoder": [1, 2, 1]}
        return {
            "n_stages": 3,
            "features_per_stage": [4, 8, 16],
            "strides": strides,
            **blocks,
            "d_state": 4,
            "expand": 2,
        }

    @property
    def candidates(self) -> tuple[tuple[int, ...], ...]:
        n = int(self.kind[0])
        return tuple(tuple(2 + 2 * i for i in at) for at in np.ndindex(*(2,) * n))

    @property
    def n_blocks(self) -> int:
        return 10

    def add_raw(self) -> Tree:
        raw = self.root / "nnUNet_raw"
        lay_out(self.shipped, raw)
        folder, ending = raw / self.shipped.folder_name, self.shipped.file_ending
        cases = sorted(file.name.removesuffix(ending) for file in (folder / "labelsTr").iterdir())
        for case in cases[N_CASES[self.kind] :]:
            (folder / "labelsTr" / f"{case}{ending}").unlink()
            (folder / "imagesTr" / f"{case}_0000{ending}").unlink()
        kept = cases[: N_CASES[self.kind]]
        step = max(4, self.n_folds)
        folds = [
            {"train": [c for c in kept if c not in kept[i::step]], "val": kept[i::step]} for i in range(self.n_folds)
        ]
        (folder / "splits_final.json").write_text(json.dumps(folds))
        description = json.loads((folder / "dataset.json").read_text())
        if self.labels is not None:
            description["labels"] = dict(self.labels)
            if any(isinstance(value, Sequence) for value in self.labels.values()):
                description["regions_class_order"] = [1, 2]
        if self.rgb:
            description["channel_names"] = {"0": "red", "1": "green", "2": "blue"}
            for file in (*folder.glob("imagesTr/*"), *folder.glob("imagesTs/*")):
                grey = Image.open(file).convert("L")
                # blue nuclei on a reddish ground, as in stained tissue
                Image.merge("RGB", [grey.point(lambda v, top=top: max(0, top - v)) for top in (230, 190, 250)]).save(
                    file
                )
        (folder / "dataset.json").write_text(json.dumps(description))
        return self

    def add_plans(self) -> Tree:
        folder, raw = self.folder("nnUNet_preprocessed"), self.folder("nnUNet_raw")
        shutil.copytree(raw / "labelsTr", folder / "gt_segmentations")
        for name in ("dataset.json", "splits_final.json"):
            shutil.copy(raw / name, folder)
        n = N_CASES[self.kind]
        shape, spacing = ([1, 256, 256], [999.0, 1.0, 1.0]) if self.kind == "2d" else ([34, 52, 35], [1.0, 1.0, 1.0])
        fingerprint = {"shapes_after_crop": [shape] * n, "spacings": [spacing] * n}
        (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        identifier = f"nnUNetPlans_{self.configuration}"
        (folder / identifier).mkdir()
        (folder / identifier / "case.pkl").touch()
        axes = int(self.kind[0])
        ours = {
            "data_identifier": identifier,
            "batch_size": 2,
            "patch_size": [32] * axes,
            "spacing": spacing[-axes:],
            "normalization_schemes": ["ZScoreNormalization"],
            "architecture": {
                "network_class_name": "nnunetv2_slicemamba.nets.unet.SliceMambaUNet",
                "arch_kwargs": self.kwargs,
            },
        }
        theirs = {
            **ours,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {"features_per_stage": [32, 64]},
            },
        }
        inherited = {"inherits_from": self.configuration, "batch_size": 4}
        for name, planner, settings, more in (
            (PLANS, "SliceMambaPlannerS", ours, {}),
            ("nnUNetPlans", "ExperimentPlanner", theirs, {"large": inherited}),
        ):
            content = {
                "dataset_name": self.shipped.folder_name,
                "plans_name": name,
                "experiment_planner_used": planner,
                "configurations": {self.configuration: settings, **more},
            }
            (folder / f"{name}.json").write_text(json.dumps(content))
        return self

    def fold(self, trainer: str, fold: int, plans: str = PLANS) -> Path:
        return self.folder("nnUNet_results") / f"{trainer}__{plans}__{self.configuration}" / f"fold_{fold}"

    def add_checkpoint(
        self, trainer: str, fold: int, plans: str = PLANS, name: str = "checkpoint_final.pth", epochs: int = 5
    ) -> Tree:
        folder = self.fold(trainer, fold, plans)
        folder.mkdir(parents=True, exist_ok=True)
        logger = LocalLogger()
        for epoch in range(epochs):
            # the types that nnU-Net logs
            logger.log("train_losses", np.float32(-0.1 * epoch - 0.1 * fold), epoch)
            logger.log("val_losses", np.float32(-0.08 * epoch), epoch)
            logger.log("mean_fg_dice", np.float32(1 - 0.5 / (epoch + 1)), epoch)
            logger.log("ema_fg_dice", np.float32(0.5), epoch)
            logger.log("dice_per_class_or_region", [np.float32(0.5)], epoch)
            logger.log("lrs", 1e-3 * (1 - epoch / 5), epoch)
            logger.log("epoch_start_timestamps", 1.7e9 + 100.0 * epoch, epoch)
            logger.log("epoch_end_timestamps", 1.7e9 + 100.0 * epoch + 60 + fold, epoch)
        network = (
            SliceMambaUNet(1, 2, **self.kwargs, slicing=self.slicing(fold))
            if plans == PLANS
            else torch.nn.Conv2d(1, 8, 3)
        )
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": None,
            "grad_scaler_state": None,
            "logging": logger.get_checkpoint(),
            "_best_ema": np.float32(0.9),
            "current_epoch": epochs,
            "init_args": {"device": torch.device("cpu"), "fold": fold},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": (0, 1),
        }
        torch.save(checkpoint, folder / name)
        (folder / "debug.json").write_text(json.dumps({"num_epochs": "5", "torch_version": "2.9.0"}))
        return self

    def architecture(self, fold: int) -> Architecture:
        drawn = np.random.default_rng(fold).integers(0, len(self.candidates), self.n_blocks)
        return tuple(int(index) for index in drawn)

    def slicing(self, fold: int) -> tuple[tuple[int, ...], ...]:
        if self.thickness is not None:
            return (self.thickness,) * self.n_blocks
        return tuple(self.candidates[index] for index in self.architecture(fold))

    def add_search(self, fold: int) -> Tree:
        folder = slicing_search_folder(self.fold(SUPERNET, fold))
        fingerprint = Fingerprint(
            dataset=self.shipped.folder_name,
            trainer=SUPERNET,
            plans_name=PLANS,
            configuration=self.configuration,
            fold=fold,
            supernet_checkpoint_sha256="a" * 64,
            plans_sha256="b" * 64,
            n_blocks=self.n_blocks,
            candidates=self.candidates,
            settings=SETTINGS,
        )
        with open_ledger(self.storage or folder / "study.db", fingerprint) as ledger:
            run_search(lambda path: Evaluation(0.7 + sum(path) / 1000), SETTINGS, ledger, progress=False)
            where = {"ledger": str(ledger.storage), "study": ledger.study_name}
        details = {"evaluations": 24, "settings": SETTINGS.as_dict(), **where}
        choice = SlicingChoice(self.slicing(fold), "search", self.architecture(fold), 0.75, 0, details)
        about = (self.shipped.folder_name, self.configuration, PLANS, fold)
        write_slicing_file(
            SlicingFile(choice, self.candidates, FITNESS_DEFINITION, *about, "a" * 64, "b" * 64),
            folder / "best_slicing.json",
        )
        return self

    def set_slicing(self, file: Path, fold: int, how_chosen: str = "fixed") -> Tree:
        """A slicing file as `slicemamba slicing` writes it."""
        choice = SlicingChoice(self.slicing(fold), how_chosen, None, seed=3 if how_chosen == "random" else None)
        about = (self.shipped.folder_name, self.configuration, PLANS, fold)
        write_slicing_file(SlicingFile(choice, self.candidates, None, *about, None, "b" * 64), file)
        return self

    def validation_cases(self, fold: int) -> Sequence[str]:
        return json.loads((self.folder("nnUNet_preprocessed") / "splits_final.json").read_text())[fold]["val"]

    def predict(self, truth: Path, cases: Sequence[str], output: Path) -> None:
        """Truth that is too large, more so in every next case; what a network predicts looks like it."""
        output.mkdir(parents=True)
        for i, case in enumerate(cases):
            image = sitk.ReadImage(str(truth / f"{case}{self.shipped.file_ending}"))
            labels = sitk.GetArrayFromImage(image)
            larger = labels.copy()
            for value in self.shipped.labels.values():
                if value:
                    larger[binary_dilation(labels == value, iterations=i + 1) & (labels == 0)] = value
            written = sitk.GetImageFromArray(larger.astype(np.uint8))
            written.CopyInformation(image)
            sitk.WriteImage(written, str(output / f"{case}{self.shipped.file_ending}"))

    def add_validation(self, trainer: str, fold: int, plans: str = PLANS) -> Tree:
        truth, output = (
            self.folder("nnUNet_preprocessed") / "gt_segmentations",
            self.fold(trainer, fold, plans) / "validation",
        )
        self.predict(truth, self.validation_cases(fold), output)
        reader = NaturalImage2DIO() if self.kind == "2d" else SimpleITKIO()
        # as nnU-Net's LabelManager gives them: numbers, and tuples for regions
        values = (self.labels or self.shipped.labels).values()
        labels = [tuple(value) if isinstance(value, Sequence) else value for value in values if value]
        with pytest.MonkeyPatch.context() as patch:
            # its pool of processes would import torch anew every time; threads do the same work
            threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
            patch.setattr(evaluate_predictions, "multiprocessing", threads)
            evaluate_predictions.compute_metrics_on_folder(
                str(truth), str(output), str(output / "summary.json"), reader, self.shipped.file_ending, labels, None, 1
            )
        return self

    def add_test_predictions(self) -> Path:
        truth = self.folder("nnUNet_raw") / "labelsTs"
        output = self.root / "ensemble"
        cases = sorted(file.name.removesuffix(self.shipped.file_ending) for file in truth.iterdir())
        for case in cases[3:]:
            (truth / f"{case}{self.shipped.file_ending}").unlink()
        self.predict(truth, cases[:3], output)
        return output


def build(root: Path, kind: str, **settings: Any) -> Tree:
    """A tree with everything: all folds searched, retrained and validated, and a stock trainer beside them."""
    tree = Tree(root, kind, **settings).add_raw().add_plans()
    for fold in range(tree.n_folds):
        tree.add_checkpoint(SUPERNET, fold, epochs=3).add_search(fold)
        tree.add_checkpoint(FINAL, fold).add_validation(FINAL, fold)
    tree.add_checkpoint(STOCK, 0, "nnUNetPlans").add_validation(STOCK, 0, "nnUNetPlans")
    tree.add_test_predictions()
    return tree
