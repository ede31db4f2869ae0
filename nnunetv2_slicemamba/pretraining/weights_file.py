"""File for `nnUNetv2_train -pretrained_weights`, the network it is for, and its slicing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.common.folders import InputError, is_writable, require_folder
from nnunetv2_slicemamba.common.json_files import plain_json, write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.names import class_name
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON
from nnunetv2_slicemamba.common.outputs import is_free, not_ours, record_of, require_record
from nnunetv2_slicemamba.common.safe_reading import read_checkpoint
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.find import find_slicing_file

RECORD = "slicemamba"  # entry that says how the weights were made
_RECORD = JsonKind("the record of weights", {"what": str, "slicing_origin": (str, None)}, "Move it away")


def require_patch_embedding(selection: Selection) -> None:
    """Raises InputError for plans of a residual network, which shares no weights with the published networks."""
    network = class_name(selection.configuration_manager.network_arch_class_name)
    if network != "SliceMambaUNet":
        raise InputError(
            f"the plans {selection.plans_name} hold {network}, whose weights are not those of the published networks: "
            "give plans of 'slicemamba plan --network paper' or '--network hybrid'"
        )


def planned_network(selection: Selection, supernet: bool = False, seed: int = 0) -> SliceMambaBase:
    """The network that nnU-Net builds for a selection, or its supernet, with weights drawn from `seed`."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer
    from nnunetv2_slicemamba.trainers.supernet import SliceMambaSupernetTrainer

    file = selection.preprocessed_folder / "dataset.json"
    if not file.is_file():
        raise InputError(f"there is no {file}; preprocess the dataset with 'slicemamba plan'")
    description = DATASET_JSON.read(file)
    manager, configuration = selection.manager, selection.configuration_manager
    channels = determine_num_input_channels(manager, configuration, description)
    heads = manager.get_label_manager(description).num_segmentation_heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        builder = SliceMambaSupernetTrainer if supernet else SliceMambaBaseTrainer
        network = builder.build_network_architecture(manager, configuration, channels, heads, False)
    assert isinstance(network, SliceMambaBase)
    return network.eval()


def choose(supernet: SupernetFolder, value: str) -> SlicingChoice:
    """Slicing that `--slicing VALUE` names: as `slicemamba slicing --set`, or "fold": the selected fold's own."""
    from nnunetv2_slicemamba.search.choosing.choices import choose_slicing
    from nnunetv2_slicemamba.search.choosing.set_slicing import fold_histories

    selection = supernet.selection
    if value == "fold":
        folder = require_folder("nnUNet_results") / selection.dataset
        value = str(find_slicing_file(folder, selection.plans_name, selection.configuration, selection.fold))
    return choose_slicing(
        value,
        selection.n_blocks,
        selection.n_dims,
        selection.candidates,
        lambda: fold_histories(supernet),
    )


def require_target(path: Path, source: Path | None = None) -> None:
    """Raises InputError unless the weights can be written to `path`, and replace nothing but weights written so."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the weights, e.g. {path / 'pretrained.pth'}")
    if source is not None and path.exists() and path.resolve() == source.resolve():
        raise InputError(f"{path} is the source itself; name another file for the weights")
    if not is_free(path) and not _is_ours(path):
        raise not_ours(path, "-o")
    require_record(path, _RECORD)
    folder = path.absolute().parent
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not is_writable(existing):
        raise InputError(f"{folder} cannot be written to; name a file in another folder")


def _is_ours(path: Path) -> bool:
    try:
        content = read_checkpoint(path, tensors=False)
    except InputError:
        return False
    return isinstance(content, Mapping) and RECORD in content


def write_weights(path: Path, state_dict: Mapping[str, Tensor], record: Mapping[str, Any]) -> Path:
    """Writes the weights for `-pretrained_weights` and, beside them, `record` as JSON; returns the latter's path.

    nnU-Net reads the entry `network_weights`, which must hold every weight and buffer of the network.
    """
    content = {"network_weights": dict(state_dict), RECORD: json.dumps(plain_json(record))}
    with replacing(path) as temporary:
        torch.save(content, temporary)
    write_json(record_of(path), record, indent=1)
    return record_of(path)
