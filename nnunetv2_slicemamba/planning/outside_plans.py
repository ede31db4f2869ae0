"""Plans of nnU-Net's own planners: whether a dataset has them, and the commands that make them."""

from __future__ import annotations

from fnmatch import fnmatchcase

from nnunetv2_slicemamba.common.dataset_names import dataset_id_of
from nnunetv2_slicemamba.common.folders import InputError, require_folder
from nnunetv2_slicemamba.common.shell import shell_line

STOCK_PLANS = "nnUNetPlans"
_RESENC = {f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in ("M", "L", "XL")}
_SHARED = ("2d", "3d_fullres")  # our plans' data are those of nnU-Net's


def planning_command(number: int, plans_name: str, configuration: str, has_fingerprint: bool = True) -> str:
    """nnU-Net's command that makes plans of a dataset; PLANNER stands for a planner that this package does not know.

    number: of the dataset. has_fingerprint: whether it was planned before, so that its plans alone are missing.
    """
    if plans_name == STOCK_PLANS and configuration in _SHARED and has_fingerprint:
        return shell_line("nnUNetv2_plan_experiment", "-d", number)
    planner = () if plans_name == STOCK_PLANS else ("-pl", _RESENC.get(plans_name, "PLANNER"))
    return shell_line("nnUNetv2_plan_and_preprocess", "-d", number, "-c", configuration, *planner)


def preprocessing_arguments(number: int, plans_name: str, configuration: str) -> tuple[str, ...]:
    """Arguments of nnUNetv2_preprocess that preprocess a dataset with plans that it has. number: of the dataset."""
    return ("-d", str(number), "-plans_name", plans_name, "-c", configuration)


def refuse_stock_name(plans_name: str) -> None:
    """Raises InputError for a name of nnU-Net's own plans, which plans of ours would replace."""
    if plans_name == STOCK_PLANS or fnmatchcase(plans_name, "nnUNetResEncUNet*Plans"):
        raise InputError(f"{plans_name} is a name of nnU-Net's own plans: give SliceMamba plans another one with -p")


def require_plans(dataset: str, plans_name: str, configuration: str) -> None:
    """Raises InputError with the command that makes them if a dataset lacks these plans. dataset: name."""
    folder = require_folder("nnUNet_preprocessed") / dataset
    if (folder / f"{plans_name}.json").is_file():
        return
    known = (folder / "dataset_fingerprint.json").is_file()
    raise InputError(
        f"{dataset} has no plans {plans_name!r}, which this training needs; make them with "
        f"'{planning_command(dataset_id_of(dataset), plans_name, configuration, known)}', or name other plans with -p"
    )
