"""What is exported: a fold's trained network, and real patches of the fold's data to check it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.folders import InputError
from nnunetv2_slicemamba.nets import SliceMambaUNet
from nnunetv2_slicemamba.search.supernet_fold import load_cases, make_trainer, quiet
from nnunetv2_slicemamba.search.windows import make_case
from nnunetv2_slicemamba.selection import Selection
from nnunetv2_slicemamba.trainers import TRAINERS

TILE_STEP_SIZE = 0.5  # nnU-Net's


@dataclass(frozen=True)
class FoldNetwork:
    """network: with the fold's weights and slicing, on the CPU, full resolution only. patches: (n, channels, *patch)
    of `case`, float32, normalised as nnU-Net does."""

    network: SliceMambaUNet
    checkpoint: Path
    case: str
    patches: Tensor


def require_final_trainer(trainer: str) -> None:
    """InputError listing the final trainers unless `trainer` is one."""
    known = [name for name in TRAINERS if name.startswith("SliceMamba") and "Supernet" not in name]
    if trainer not in known:
        raise InputError(f"{trainer!r} is no trainer of a final network; give -tr one of {', '.join(known)}")


def find_checkpoint(selection: Selection, trainer: str, name: str) -> Path:
    """The fold's checkpoint; InputError naming what is there, or the training command."""
    folder = selection.fold_folder(trainer)
    file = folder / name
    if file.is_file():
        return file
    present = sorted(path.name for path in folder.glob("checkpoint_*.pth"))
    command = (
        f"nnUNetv2_train {selection.dataset} {selection.configuration} {selection.fold} "
        f"-tr {trainer} -p {selection.plans_name}"
    )
    remedy = f"give -chk one of {', '.join(present)}" if present else f"train it first with '{command}'"
    raise InputError(f"there is no checkpoint {file}; {remedy}")


def load_fold_network(selection: Selection, trainer: str, checkpoint: Path, most_patches: int) -> FoldNetwork:
    """The network and up to `most_patches` evenly spaced windows of the fold's first validation case.

    Fold "all", and a fold without validation cases, take the first training case.
    """
    with quiet():
        nnunet = make_trainer(selection, trainer, torch.device("cpu"))
        nnunet.initialize()
        training, validation = nnunet.do_split()
    network = nnunet.bare_network
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=False)["network_weights"])
    network.decoder.deep_supervision = False
    name = next(iter([*validation, *training]))
    case = load_cases(nnunet, [name])[0]
    cut = make_case(case.data, case.truth, selection.configuration_manager.patch_size, TILE_STEP_SIZE)
    chosen = np.unique(np.linspace(0, len(cut.windows) - 1, most_patches).round().astype(int))
    patches = torch.stack([cut.patch(cut.windows[i]) for i in chosen]).float().contiguous()
    return FoldNetwork(network.eval(), checkpoint, name, patches)
