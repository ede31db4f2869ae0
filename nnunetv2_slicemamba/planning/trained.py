"""Protection of plans that networks were trained with from other plans of the same name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError, require_unused
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_files import leaves, plain_json
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder

MOST_SHOWN = 4
_NETWORK = "architecture."
_REMEDY = (
    "Networks were trained with these plans: restore the file, or pass --force if what was trained need be "
    "neither continued nor searched nor validated"
)


def refuse_other_plans(plans: Mapping[str, Any], existing: Path, results: Path) -> None:
    """Raises InputError if a network in `results` was or is trained with other plans of this name: what differs.

    plans: those that are about to be written to `existing`, PLANS.json of a dataset, as JSON takes them. results:
    nnUNet_results/DATASET, which need not be there. What a training keeps beside its folds counts, else what `existing`
    says now.
    """
    for folder in sorted(results.glob(f"*__{existing.stem}__*")):
        trained = begun_folds(folder)
        source = next((file for file in (folder / "plans.json", existing) if file.is_file()), None)
        if not trained or source is None:
            continue
        configuration = folder.name.split("__")[2]
        old = PLANS_JSON.read(source, _REMEDY)
        changes = differences(old, plans, configuration)
        if changes:
            more = f" and {len(changes) - MOST_SHOWN} more" if len(changes) > MOST_SHOWN else ""
            raise InputError(
                f"{folder} ({', '.join(trained)}) was trained with other plans {existing.stem}, which would be "
                f"overwritten: {'; '.join(changes[:MOST_SHOWN])}{more}. Give these plans another name "
                f"(-p NAME){_as_before(old, plans)}, use those that are there, as 'slicemamba run' does, or pass "
                "--force: what was trained can then be neither continued nor searched nor validated"
            )


def begun_folds(folder: Path) -> list[str]:
    """Names of the folds in TRAINER__PLANS__CONFIG with a checkpoint, or with a training that has none yet."""
    return sorted(fold.name for fold in folder.glob("fold_*") if _is_begun(fold))


def _is_begun(fold: Path) -> bool:
    try:
        require_unused(fold)
    except FolderInUseError:
        return True
    return any(fold.glob("checkpoint_*.pth"))


def require_same_network(folder: FoldFolder) -> None:
    """Raises InputError if the folds that a trainer has begun are of another network than the plans hold now.

    SameNetwork compares weights; this comes before any are read.
    """
    selection, beside, file = folder.selection, folder.path.parent, folder.plans_file
    begun = begun_folds(beside)
    if not (begun and selection.plans and PLANS_JSON.is_readable(file)):
        return
    trained = PLANS_JSON.read(file)
    if trained["configurations"] == plain_json(selection.plans)["configurations"]:
        return
    differs, remedy = other_network(trained, selection.plans, selection.configuration)
    if differs:
        raise InputError(
            f"{beside} ({', '.join(begun)}) has another network than the plans {selection.plans_name} hold now: "
            f"{differs}. {remedy}, or move that folder away to train anew; the old plans are in its plans.json"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], configuration: str) -> list[str]:
    """Differences of plans about a configuration, one phrase per setting; a configuration that is gone is the only one.

    A setting that only one of them gives counts in the network's description; elsewhere versions of nnU-Net differ so.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # imports PyTorch

    values = []
    for plans in (old, new):
        plain = plain_json(plans)
        manager = PlansManager(plain)
        if configuration not in manager.available_configurations:
            return [f"{configuration} would be missing"]
        # with what it inherits
        settings = manager.get_configuration(configuration).configuration
        shared = {key: value for key, value in plain.items() if key not in ("configurations", OPTIONS_IN_PLANS)}
        values.append(dict(leaves(shared | settings)))
    before, after = values
    return [
        f"{key} {_short(after.get(key))} in place of {_short(before.get(key))}"
        for key in before | after
        if before.get(key) != after.get(key) and (key.startswith(_NETWORK) or (key in before and key in after))
    ]


def other_network(old: Mapping[str, Any], new: Mapping[str, Any], configuration: str) -> tuple[str, str]:
    """Differences of plans about a configuration's network, in words and empty without any, and what to do about them.

    old: of trained weights, which `new` do not fit.
    """
    changes = [change for change in differences(old, new, configuration) if change.startswith(_NETWORK)]
    more = f" and {len(changes) - MOST_SHOWN} more" if len(changes) > MOST_SHOWN else ""
    remedy = f"Restore the plans{_as_before(old, new)}, give the new ones another name (-p NAME)"
    return "; ".join(changes[:MOST_SHOWN]) + more, remedy


def _as_before(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The options by which a residual network has its blocks where old plans have them; empty where it does anyway."""
    from nnunetv2_slicemamba.planning.residual import planned_options  # imports PyTorch

    before, now = planned_options(old), planned_options(new)
    said = []
    if _differ(before, now, "blocks_from_stride"):
        said.append(f"with --blocks-from-stride {before['blocks_from_stride']}")
    if _differ(before, now, "decoder_blocks"):
        said.append("with --decoder-blocks" if before["decoder_blocks"] else "without --decoder-blocks")
    return f", plan them {' and '.join(said)} as before" if said else ""


def _differ(before: Mapping[str, Any], now: Mapping[str, Any], option: str) -> bool:
    return option in before and option in now and before[option] != now[option]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
