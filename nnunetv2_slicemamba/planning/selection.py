"""Selection of dataset, plans, configuration and fold for a command; mistakes are refused before work starts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_slicemamba.common.folders import InputError, require_folder
from nnunetv2_slicemamba.common.names import DEFAULT_PLANS, NETWORK_CLASSES, class_name
from nnunetv2_slicemamba.planning.architecture import planned_candidates
from nnunetv2_slicemamba.slicing.candidates import Slicing


def require_dataset(dataset: str, variable: str) -> str:
    """The name of a dataset given as ID or as name, which must have a folder in `variable`'s folder."""
    root = require_folder(variable)
    present = sorted(path.name for path in root.glob("Dataset[0-9][0-9][0-9]_*") if path.is_dir())
    listed = ", ".join(present) or "none"
    if dataset.isdigit():
        if sum(name.startswith(f"Dataset{int(dataset):03d}_") for name in present) == 0:
            raise InputError(f"there is no dataset {dataset} in {variable}={root}; it has: {listed}")
        try:
            name = str(convert_id_to_dataset_name(int(dataset)))
        except RuntimeError as error:
            raise InputError(str(error)) from error
    else:
        name = dataset
    if name not in present:
        raise InputError(
            f"there is no dataset {dataset!r} in {variable}={root}; give an ID such as 501 or one of: {listed}"
        )
    return name


@dataclass(frozen=True)
class Selection:
    """One fold of one configuration of one dataset under given plans; make one with `select`."""

    dataset: str
    plans: dict[str, Any]
    plans_name: str
    configuration: str
    fold: int | str

    @property
    def manager(self) -> PlansManager:
        """nnU-Net's view of the plans."""
        return PlansManager(self.plans)

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration."""
        return self.manager.get_configuration(self.configuration)

    @property
    def arch_kwargs(self) -> dict[str, Any]:
        """Arguments of the network in the plans."""
        return self.configuration_manager.network_arch_init_kwargs

    @property
    def n_dims(self) -> int:
        """Spatial axes, 2 or 3."""
        return len(self.arch_kwargs["strides"][0])

    @property
    def n_blocks(self) -> int:
        """Blocks of the network, encoder and decoder."""
        return sum(self.arch_kwargs["n_blocks_per_stage"]) + sum(self.arch_kwargs["n_blocks_per_stage_decoder"])

    def with_blocks(self) -> Selection:
        """This selection; InputError if its network has no S3 blocks, and so no supernet and no slicing."""
        if self.n_blocks == 0:
            raise InputError(
                f"the network of the plans {self.plans_name} has no S3 blocks, so no supernet and no slicing: train it "
                f"with 'nnUNetv2_train {self.dataset} {self.configuration} {self.fold} -tr SliceMambaTrainer "
                f"-p {self.plans_name}', or plan some blocks (--blocks-from-stride 8)"
            )
        return self

    @property
    def candidates(self) -> Slicing:
        """Thickness per candidate index, as the supernet trainers build them."""
        return planned_candidates(self.arch_kwargs)

    @property
    def preprocessed_folder(self) -> Path:
        """nnUNet_preprocessed/DATASET."""
        return require_folder("nnUNet_preprocessed") / self.dataset

    @property
    def results_folder(self) -> Path:
        """nnUNet_results/DATASET."""
        return require_folder("nnUNet_results") / self.dataset

    def configuration_folder(self, trainer: str) -> Path:
        """nnUNet_results/DATASET/TRAINER__PLANS__CONFIG."""
        return self.results_folder / f"{trainer}__{self.plans_name}__{self.configuration}"

    def fold_folder(self, trainer: str) -> Path:
        """The result folder of this fold."""
        return self.configuration_folder(trainer) / f"fold_{self.fold}"


def select(dataset: str, configuration: str, fold: str, plans_name: str = DEFAULT_PLANS) -> Selection:
    """Checks dataset, plans, configuration and fold against nnUNet_preprocessed.

    Raises InputError naming what is there instead.
    """
    name = require_dataset(dataset, "nnUNet_preprocessed")
    folder = require_folder("nnUNet_preprocessed") / name
    file = folder / f"{plans_name}.json"
    if not file.is_file():
        present = sorted(path.stem for path in folder.glob("*Plans.json"))
        raise InputError(
            f"there are no plans {plans_name!r} for {name}; it has: {', '.join(present) or 'none'}. "
            f"Make them with 'slicemamba plan -d {dataset}' (size S: -p nnUNetSliceMambaSPlans)"
        )
    plans = json.loads(file.read_text())
    available = list(plans["configurations"])
    if configuration not in available:
        raise InputError(
            f"plans {plans_name!r} of {name} have no configuration {configuration!r}; they have: {', '.join(available)}"
        )
    selection = Selection(name, plans, plans_name, configuration, check_fold(fold, folder))
    network = selection.configuration_manager.network_arch_class_name
    if class_name(network) not in NETWORK_CLASSES:
        raise InputError(
            f"plans {plans_name!r} hold the network {network}, not "
            f"{' or '.join(NETWORK_CLASSES)}; give the plans of 'slicemamba plan'"
        )
    return selection


def check_fold(fold: str, preprocessed: Path) -> int | str:
    """`fold` as nnU-Net takes it: "all", or an int among those of splits_final.json (0..4 as long as there is none)."""
    if fold == "all":
        return fold
    splits = preprocessed / "splits_final.json"
    n = len(json.loads(splits.read_text())) if splits.is_file() else 5
    if not fold.isdigit() or int(fold) >= n:
        raise InputError(
            f"fold {fold!r} does not exist: give 'all' or a number from 0 to {n - 1}, the splits that are defined"
        )
    return int(fold)


def choose_device(name: str) -> torch.device:
    """The torch device for "cuda", "cpu", "mps" or "auto" (CUDA where there is one); InputError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name not in there:
        raise InputError(f"device {name!r} does not exist; give one of {', '.join(there)}")
    if not there[name]:
        present = ", ".join(device for device, available in there.items() if available)
        raise InputError(f"device {name!r} is not available on this machine; it has: {present}")
    if name == "cpu":
        # as nnU-Net's commands do
        torch.set_num_threads(os.cpu_count() or 1)
    return torch.device(name)
