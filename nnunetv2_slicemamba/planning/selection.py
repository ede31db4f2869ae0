"""Selection of dataset, plans, configuration and fold for a command; mistakes are refused before work starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.common.dataset_names import datasets_in, named_by
from nnunetv2_slicemamba.common.folders import InputError, require_folder
from nnunetv2_slicemamba.common.hashing import resolved_configuration
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.common.json_shape import mismatch
from nnunetv2_slicemamba.common.names import NETWORK_CLASSES, check_plans_name, class_name, is_number
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON, PLANS_JSON, SPLITS_JSON
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.architecture import planned_candidates
from nnunetv2_slicemamba.planning.plans_name import require_same_name
from nnunetv2_slicemamba.planning.present_plans import only_plans
from nnunetv2_slicemamba.planning.sizes import BLOCKS_FROM_STRIDE
from nnunetv2_slicemamba.slicing.candidates import Slicing
from nnunetv2_slicemamba.slicing.find import set_slicing_file

if TYPE_CHECKING:
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

DRAWN_FOLDS = 5  # by nnU-Net, where there are no splits
# of a configuration with what it inherits; other networks are told apart by their class
_BUILT_FROM = {
    "data_identifier": str,
    "patch_size": [int],
    "batch_size": int,
    "spacing": [float],
    "architecture": {
        "network_class_name": str,
        "arch_kwargs": {
            "n_stages?": int,
            "strides?": [[int]],
            "features_per_stage?": [int],
            "n_blocks_per_stage?": [int],
            "n_blocks_per_stage_decoder?": [int],
            "candidates?": ([([int], str)], None),
        },
    },
}


def require_dataset(dataset: str, variable: str) -> str:
    """The name of a dataset given as ID or as name, which must have a folder in `variable`'s folder."""
    root = require_folder(variable)
    present = datasets_in(root)
    listed = ", ".join(present) or "none"
    if is_number(dataset):
        if not named_by(dataset, present):
            raise InputError(f"there is no dataset {dataset} in {variable}={root}; it has: {listed}")
        from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

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
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.plans)

    @property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration."""
        return self.manager.get_configuration(self.configuration)

    @property
    def arch_kwargs(self) -> dict[str, Any]:
        """Arguments of the network in the plans."""
        found: dict[str, Any] = self._resolved["architecture"]["arch_kwargs"]
        return found

    @property
    def _resolved(self) -> dict[str, Any]:
        """The configuration with what it inherits, without the imports of nnU-Net's view."""
        return resolved_configuration(self.plans["configurations"], self.configuration)

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
                f"-p {self.plans_name}', or plan some blocks (--blocks-from-stride {BLOCKS_FROM_STRIDE})"
            )
        return self

    @property
    def candidates(self) -> Slicing:
        """The candidates by index, as the supernet trainers build them."""
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

    @property
    def set_slicing_file(self) -> Path:
        """The file of a slicing that was set by hand for this fold, which need not be there."""
        return set_slicing_file(self.results_folder, self.plans_name, self.configuration, self.fold)


def select(
    dataset: str, configuration: str, fold: str, plans_name: str | None = None, any_network: bool = False
) -> Selection:
    """Checks dataset, plans, configuration and fold against nnUNet_preprocessed.

    plans_name: None stands for the only SliceMamba plans of the dataset. any_network: also take plans of networks that
    are not this package's. Raises InputError naming what is there instead.
    """
    if plans_name is not None:
        check_plans_name(plans_name)
    name = require_dataset(dataset, "nnUNet_preprocessed")
    folder = require_folder("nnUNet_preprocessed") / name
    if plans_name is None:
        plans_name = only_plans(folder)
    file = folder / f"{plans_name}.json"
    if not file.is_file():
        present = sorted(path.stem for path in folder.glob("*Plans.json"))
        raise InputError(
            f"there are no plans {plans_name!r} for {name}; it has: {', '.join(present) or 'none'}. "
            f"Make some with '{shell_line('slicemamba', 'plan', '-d', dataset)}'"
        )
    plans = PLANS_JSON.read(file)
    require_same_name(plans, file)
    available = list(plans["configurations"])
    if configuration not in available:
        raise InputError(
            f"plans {plans_name!r} of {name} have no configuration {configuration!r}; they have: {', '.join(available)}"
        )
    resolved = _whole(plans, configuration, file)
    selection = Selection(name, plans, plans_name, configuration, check_fold(fold, folder))
    _check_split(selection.fold, folder, folder / resolved["data_identifier"])
    network = resolved["architecture"]["network_class_name"]
    if not any_network and class_name(network) not in NETWORK_CLASSES:
        raise InputError(
            f"plans {plans_name!r} hold the network {network}, not "
            f"{' or '.join(NETWORK_CLASSES)}; give the plans of 'slicemamba plan'"
        )
    return selection


def check_fold(fold: str, preprocessed: Path) -> int | str:
    """`fold` as nnU-Net takes it: "all", or an int among those of splits_final.json (0..4 as long as there is none).

    Raises InputError for another one, and where nnU-Net could not draw its folds.
    """
    if fold == "all":
        return fold
    file = preprocessed / "splits_final.json"
    splits = SPLITS_JSON.read_if_there(file)
    if splits is not None and not splits:
        raise JsonFileError(file, "holds no fold", SPLITS_JSON.remedy)
    if splits is None:
        refuse_few_cases(fold, preprocessed)
    n = DRAWN_FOLDS if splits is None else len(splits)
    if not is_number(fold) or int(fold) >= n:
        numbers = "0, the only split" if n == 1 else f"a number from 0 to {n - 1}, the splits"
        raise InputError(f"fold {fold!r} does not exist: give 'all' or {numbers} that {_are(n)} defined")
    for part, cases in splits[int(fold)].items() if splits is not None else ():
        if part in ("train", "val") and not cases:
            remedy = "Name some; -f all trains on all cases, and validates on them"
            raise JsonFileError(file, f"has no case in {part!r} of fold {int(fold)}", remedy)
    return int(fold)


def refuse_few_cases(fold: str, preprocessed: Path) -> None:
    """Raises InputError if there are fewer training cases than the folds that nnU-Net draws."""
    truth = preprocessed / "gt_segmentations"  # what nnU-Net keeps of every training case
    cases = sum(not path.name.startswith(".") for path in truth.iterdir()) if truth.is_dir() else DRAWN_FOLDS
    if cases < DRAWN_FOLDS:
        raise InputError(
            f"fold {fold!r} cannot be drawn: nnU-Net draws {DRAWN_FOLDS} folds and wants a training case for each, "
            f"{preprocessed.name} has {cases}. Train with -f all, add cases, or write splits_final.json into "
            f"{preprocessed}: 'slicemamba convert --split random:0' makes as many folds as there are cases"
        )


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _check_split(fold: int | str, folder: Path, data: Path) -> None:
    """Raises InputError if the fold's split names cases that neither `data` nor the truth in `folder` has."""
    file, description = folder / "splits_final.json", DATASET_JSON.read_if_there(folder / "dataset.json")
    splits = SPLITS_JSON.read_if_there(file)
    if splits is None or description is None or not isinstance(fold, int):
        return
    ending = description["file_ending"]
    truth = (path.name.removesuffix(ending) for path in (folder / "gt_segmentations").glob(f"*{ending}"))
    known = {*truth, *(path.stem for path in data.glob("*.pkl"))}
    named = splits[fold]
    unknown = sorted({*named["train"], *named["val"]} - known)
    if known and unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise JsonFileError(
            file,
            f"names cases in fold {fold} that are not in {folder}: {unknown[0]!r}{more}",
            "Correct the names; preprocess cases that are new with 'slicemamba plan'",
        )


def _whole(plans: dict[str, Any], configuration: str, file: Path) -> dict[str, Any]:
    """A configuration with what it inherits; InputError unless it has all that its network is built from."""
    try:
        resolved = resolved_configuration(plans["configurations"], configuration)
    except ValueError as error:  # inherits what is not there, or itself
        raise JsonFileError(file, f"cannot be used: {error}", PLANS_JSON.remedy) from error
    wrong = mismatch(resolved, _BUILT_FROM)
    if wrong is not None:
        raise JsonFileError(
            file, f"is not {PLANS_JSON.name}: in configuration {configuration!r}, {wrong}", PLANS_JSON.remedy
        )
    patch, batch, axes = resolved["patch_size"], resolved["batch_size"], len(resolved["spacing"])
    if min((batch, *patch)) < 1 or len(patch) != axes:
        raise JsonFileError(
            file,
            f"has batch_size {batch} and patch_size {patch} in configuration {configuration!r}; both must be at least "
            f"1, and the patch has {axes} axes",
            PLANS_JSON.remedy,
        )
    return resolved


def choose_device(name: str) -> torch.device:
    """The torch device for "cuda", "cpu", "mps" or "auto" (CUDA where there is one); InputError if it is not there."""
    import torch

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
