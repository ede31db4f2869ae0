"""A fold's trained network to export, and real patches of the fold's data to check it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nnunetv2_slicemamba.common.checkpoints import CheckpointError, load_network
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.nets import SlicedNetwork
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.trained import require_same_network
from nnunetv2_slicemamba.search.evaluation.windows import make_case
from nnunetv2_slicemamba.trainers.offline import load_cases, make_trainer, quiet

TILE_STEP_SIZE = 0.5  # nnU-Net's


@dataclass(frozen=True)
class FoldNetwork:
    """A fold's network and patches to check it with.

    network: with the fold's weights and slicing, on the CPU, full resolution only. checkpoint_sha256: of the weights'
    file as it was read. patches: (n, channels, *patch) of `case`, float32, normalised as nnU-Net does.
    """

    network: SlicedNetwork
    checkpoint: Path
    checkpoint_sha256: str
    case: str
    patches: Tensor


def find_checkpoint(folder: FoldFolder, name: str) -> Path:
    """Path of the fold's checkpoint `name`; InputError naming what is there, or the training command."""
    file = folder.path / name
    if file.is_file():
        return file
    present = sorted(path.name for path in folder.path.glob("checkpoint_*.pth"))
    remedy = f"give -chk one of {', '.join(present)}" if present else f"train it first with '{folder.train_command}'"
    raise InputError(f"there is no checkpoint {file}; {remedy}")


def load_fold_network(folder: FoldFolder, checkpoint: Path, most_patches: int) -> FoldNetwork:
    """A fold's network and up to `most_patches` evenly spaced windows of the fold's first validation case.

    Fold "all", and a fold without validation cases, take the first training case. Raises CheckpointError for a
    checkpoint that cannot be read, is damaged, or holds weights that are not finite, InputError where the plans hold
    another network by now.
    """
    require_same_network(folder)
    remedy = "give another with -chk, or move it away and train the fold anew"
    with quiet():
        nnunet = make_trainer(folder, torch.device("cpu"))
        nnunet.initialize()
        training, validation = nnunet.do_split()
    network = nnunet.bare_network
    digest = sha256_of_file(checkpoint)
    load_network(network, checkpoint, remedy)
    if sha256_of_file(checkpoint) != digest:
        raise CheckpointError(
            f"{checkpoint} was replaced while it was read: a training goes on in its folder; call the command again"
        )
    network.decoder.deep_supervision = False
    name = next(iter([*validation, *training]))
    case = load_cases(nnunet, [name])[0]
    cut = make_case(case.data, case.truth, folder.selection.configuration_manager.patch_size, TILE_STEP_SIZE)
    chosen = np.unique(np.linspace(0, len(cut.windows) - 1, most_patches).round().astype(int))
    patches = torch.stack([cut.patch(cut.windows[i]) for i in chosen]).float().contiguous()
    return FoldNetwork(network.eval(), checkpoint, digest, name, patches)
