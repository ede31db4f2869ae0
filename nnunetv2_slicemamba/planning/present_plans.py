"""SliceMamba plans that a dataset has, and the one that is meant where a command names none."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonFileError
from nnunetv2_slicemamba.common.names import NETWORK_CLASSES, NO_PLANS, OPTIONS_IN_PLANS, class_name
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import (
    NETWORKS,
    PAPER,
    RECOMMENDED,
    SIZES,
    planner_name_of,
    plans_name_of,
)


def present_plans(preprocessed: Path) -> list[str]:
    """Names of the plans with a SliceMamba network in nnUNet_preprocessed/DATASET, in alphabetical order."""
    return sorted(file.stem for file in preprocessed.glob("*.json") if file.stem not in NO_PLANS and _is_ours(file))


def only_plans(preprocessed: Path) -> str:
    """The name of the only SliceMamba plans of a dataset; InputError if there are none, and for several naming them."""
    found = present_plans(preprocessed)
    if len(found) == 1:
        return found[0]
    if found:
        raise _several(preprocessed, found)
    number = preprocessed.name
    raise InputError(
        f"there are no SliceMamba plans for {number}; make some with '{shell_line('slicemamba', 'plan', '-d', number)}'"
    )


def plans_to_use(preprocessed: Path, size: str | None, network: str | None) -> str:
    """The name of the plans that `slicemamba run` takes: those of a dataset that fit, else those that it is to make.

    preprocessed: nnUNet_preprocessed/DATASET, which need not be there. size, network: keys of SIZES and NETWORKS, None
    for any. Raises InputError if several fit.
    """
    found = present_plans(preprocessed)
    if size is not None or network is not None:
        sizes, networks = SIZES if size is None else [size], NETWORKS if network is None else [network]
        found = [name for name in found if name in {plans_name_of(s, n) for s in sizes for n in networks}]
    if len(found) > 1:
        raise _several(preprocessed, found)
    return found[0] if found else plans_name_of(size or PAPER, network or RECOMMENDED)


def size_and_network(plans_name: str, size: str | None, network: str | None) -> tuple[str, str]:
    """Size and network to plan: those that are asked for, else those of the plans' name, else the usual ones."""
    known = {plans_name_of(one, other): (one, other) for one in SIZES for other in NETWORKS}
    usual = known.get(plans_name, (PAPER, RECOMMENDED))
    return size or usual[0], network or usual[1]


def require_planned_as_asked(file: Path, size: str | None, network: str | None, gpu_memory: float | None) -> str:
    """Raises InputError if plans that are there were made with other options than those that a run is given.

    file: plans, which need not be there. size, network, gpu_memory: None where it was not given. Returns a sentence
    for the user where the plans do not tell what they were made with, else "".
    """
    given = {"--size": size, "--network": network, "--gpu-memory": gpu_memory}
    if not file.is_file() or all(value is None for value in given.values()):
        return ""
    plans = PLANS_JSON.read(file)
    planners = {planner_name_of(one, other): (one, other) for one in SIZES for other in NETWORKS}
    made_size, made_network = planners.get(plans.get("experiment_planner_used", ""), (None, None))
    made_memory = plans.get(OPTIONS_IN_PLANS, {}).get("gpu_memory")
    made = {"--size": made_size, "--network": made_network, "--gpu-memory": made_memory}
    asked = {flag: value for flag, value in given.items() if value is not None}
    for flag, value in asked.items():
        if made[flag] not in (None, value):
            raise InputError(
                f"the plans {file.stem} are there already and were made with {flag} {made[flag]}, not {value}: leave "
                f"{flag} out to use them, or give new plans another name with -p"
            )
    unknown = [flag for flag in asked if made[flag] is None]
    if not unknown:
        return ""
    return f"{', '.join(unknown)} changes nothing: the plans {file.stem} are there already and are used as they are"


def told_of_other_size(file: Path) -> str:
    """A sentence for the user of plans of another size than the one that is planned by default, else "".

    file: plans that a run takes unasked, which need not be there.
    """
    planner = PLANS_JSON.read(file).get("experiment_planner_used", "") if file.is_file() else ""
    for size in SIZES:
        if size != PAPER and planner in {planner_name_of(size, network) for network in NETWORKS}:
            return f"The plans {file.stem} are there already and are used; --size {PAPER} plans in size {PAPER}"
    return ""


def plans_flags(preprocessed: Path, plans_name: str) -> tuple[str, ...]:
    """-p NAME for a command to type next; nothing where the plans are a dataset's only ones."""
    return () if present_plans(preprocessed) == [plans_name] else ("-p", plans_name)


def _several(preprocessed: Path, found: Collection[str]) -> InputError:
    return InputError(f"{preprocessed.name} has several SliceMamba plans: {', '.join(found)}; name one with -p")


def _is_ours(file: Path) -> bool:
    try:
        configurations = PLANS_JSON.read(file)["configurations"]
    except JsonFileError:
        # damaged plans of ours are not passed over in favour of others; the command that reads them says what is wrong
        return "SliceMamba" in file.stem
    networks = (one.get("architecture", {}).get("network_class_name") for one in configurations.values())
    return any(class_name(str(network)) in NETWORK_CLASSES for network in networks)
