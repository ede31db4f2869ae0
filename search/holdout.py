"""Set aside cases of a fold for its search, or give them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common import checkpoint_names
from nnunetv2_slicemamba.common.checkpoints import read_training
from nnunetv2_slicemamba.common.folder_lock import in_use
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.slicing.holdout_file import (
    Holdout,
    HoldoutError,
    check_draw,
    check_trained_with,
    draw_holdout,
    holdout_in,
    read_holdout,
    sha256_of_split,
    write_holdout,
)
from nnunetv2_slicemamba.trainers.roles import require_supernet_trainer


def hold_out(folder: SupernetFolder, fraction: float, seed: int | None = 0) -> tuple[Holdout, Path, list[str]]:
    """Draws the holdout of a fold and writes it where the supernet's trainer and the search look for it.

    folder: of the fold's supernet. seed: None keeps a holdout of this fraction that is there, else
    draws with seed 0. Returns the holdout, its file and the training cases that stay.
    Raises HoldoutError for a fraction or split that leaves nothing on one side, or a supernet that was trained, or is
    in training, without exactly this holdout; FolderInUseError while it is trained or searched, as a training that has
    no checkpoint yet would not show which cases it took.
    """
    import torch

    from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet

    require_supernet_trainer(folder.trainer)
    check_draw(fraction, seed or 0)
    path = folder.holdout_file
    if seed is None:
        present = read_holdout(path)
        seed = present.seed if present is not None and present.fraction == fraction else 0
    with quiet():
        training, validation = make_trainer(folder, torch.device("cpu")).full_split()
    holdout = Holdout(
        dataset=folder.selection.dataset,
        plans_name=folder.selection.plans_name,
        configuration=folder.selection.configuration,
        fold=folder.selection.fold,
        fraction=fraction,
        seed=seed,
        cases=draw_holdout(training, fraction, seed),
        split_sha256=sha256_of_split(training, validation),
    )
    with in_use(folder.path):
        _refuse_trained(folder, holdout)
        write_holdout(holdout, path)
    return holdout, path, holdout.without(training)


def remove_holdout(folder: SupernetFolder) -> Path | None:
    """Deletes a fold's holdout file; returns it, None if there was none.

    Raises HoldoutError if the fold's supernet was trained with it, FolderInUseError as `hold_out`.
    """
    require_supernet_trainer(folder.trainer)
    path = folder.holdout_file
    if not path.is_file():
        return None
    with in_use(folder.path):
        _refuse_trained(folder, None)
        path.unlink()
    return path


def recorded_holdout(checkpoint: Path) -> Holdout | None:
    """The holdout that a supernet's checkpoint was trained with; None for one trained on all training cases.

    Raises CheckpointError if the checkpoint cannot be read, HoldoutError if its holdout cannot.
    """
    return holdout_in(recorded_init_args(checkpoint))


def recorded_init_args(checkpoint: Path) -> dict[str, Any]:
    """What a supernet's checkpoint says of its training. Raises HoldoutError if it cannot be read."""
    content = read_training(checkpoint, "restore the file, or move it away and train the supernet anew", tensors=False)
    try:
        init_args = dict(content.get("init_args", {}))
        holdout_in(init_args)
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        raise HoldoutError(
            f"the holdout in the checkpoint {checkpoint} cannot be read ({error}); move it away and train the supernet "
            "anew"
        ) from error
    return init_args


def _refuse_trained(folder: SupernetFolder, wanted: Holdout | None) -> None:
    for name in checkpoint_names.ALL:
        if (folder.path / name).is_file():
            check_trained_with(recorded_holdout(folder.path / name), wanted, folder.path, folder.trainer)
