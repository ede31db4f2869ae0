"""Set aside cases of a fold for its search, or give them back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.common import checkpoint_names
from nnunetv2_slicemamba.slicing.holdout_file import (
    Holdout,
    HoldoutError,
    check_draw,
    check_trained_with,
    draw_holdout,
    holdout_of,
    holdout_path,
    read_holdout,
    sha256_of_split,
    write_holdout,
)

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.selection import Selection

# Entry of a checkpoint's init_args: the only one that nnU-Net lets a trainer add to.
CHECKPOINT_KEY = "slicing_holdout"


def hold_out(
    selection: Selection, trainer: str, fraction: float, seed: int | None = 0
) -> tuple[Holdout, Path, list[str]]:
    """Draws the holdout of a fold and writes it where the supernet's trainer and the search look for it.

    trainer: class name of the supernet's trainer. seed: None keeps a holdout of this fraction that is there, else
    draws with seed 0. Returns the holdout, its file and the training cases that stay.
    Raises HoldoutError for a fraction or split that leaves nothing on one side, or a supernet that was trained, or is
    in training, without exactly this holdout.
    """
    import torch

    from nnunetv2_slicemamba.search.evaluation.supernet_fold import make_trainer, quiet, require_supernet_trainer

    require_supernet_trainer(trainer)
    check_draw(fraction, seed or 0)
    path = holdout_path(selection.fold_folder(trainer))
    if seed is None:
        present = read_holdout(path)
        seed = present.seed if present is not None and present.fraction == fraction else 0
    with quiet():
        training, validation = make_trainer(selection, trainer, torch.device("cpu")).full_split()
    holdout = Holdout(
        dataset=selection.dataset,
        plans_name=selection.plans_name,
        configuration=selection.configuration,
        fold=selection.fold,
        fraction=fraction,
        seed=seed,
        cases=draw_holdout(training, fraction, seed),
        split_sha256=sha256_of_split(training, validation),
    )
    _refuse_trained(selection, trainer, holdout)
    write_holdout(holdout, path)
    return holdout, path, holdout.without(training)


def remove_holdout(selection: Selection, trainer: str) -> Path | None:
    """Deletes a fold's holdout file; returns it, None if there was none.

    Raises HoldoutError if the fold's supernet was trained with it.
    """
    from nnunetv2_slicemamba.search.evaluation.supernet_fold import require_supernet_trainer

    require_supernet_trainer(trainer)
    path = holdout_path(selection.fold_folder(trainer))
    if not path.is_file():
        return None
    _refuse_trained(selection, trainer, None)
    path.unlink()
    return path


def recorded_holdout(checkpoint: Path) -> Holdout | None:
    """The holdout that a supernet's checkpoint was trained with; None for one trained on all training cases.

    Raises HoldoutError if the checkpoint cannot be read.
    """
    import pickle

    import torch

    try:
        # mapped into memory: of gigabytes, only the few bytes that are asked for are read
        content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
        return holdout_in(content.get("init_args", {}))
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise HoldoutError(f"the checkpoint {checkpoint} cannot be read ({error}); train the supernet anew") from error


def holdout_in(init_args: dict[str, Any]) -> Holdout | None:
    """The holdout in the init_args of a checkpoint, None if there is none."""
    content = init_args.get(CHECKPOINT_KEY)
    return None if content is None else holdout_of(content)


def _refuse_trained(selection: Selection, trainer: str, wanted: Holdout | None) -> None:
    folder = selection.fold_folder(trainer)
    for name in checkpoint_names.ALL:
        if (folder / name).is_file():
            check_trained_with(recorded_holdout(folder / name), wanted, folder, trainer)
