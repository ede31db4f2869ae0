"""holdout.json, the training cases of a fold that are set aside for its search.

Choosing on a fold's validation cases makes the Dice that is reported on them optimistic. A holdout is a part of the
training cases that the supernet does not see and the search chooses on; the final trainer uses them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_slicemamba.common.hashing import sha256_of_names
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonFileError, JsonKind
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.slicing.find import slicing_search_folder

SCHEMA_VERSION = 1
HOLDOUT_FILE = "holdout.json"
# entry of a checkpoint's init_args, the only dictionary in it that nnU-Net lets a trainer add to
CHECKPOINT_KEY = "slicing_holdout"

_HOLDOUT = JsonKind(
    "a holdout",
    {
        "schema_version": int,
        **dict.fromkeys(("dataset", "plans_name", "configuration", "split_sha256"), str),
        "fold": (int, str),
        "fraction": float,
        "seed": int,
        "cases": [str],
    },
    "Make it again with 'slicemamba holdout'; a supernet that was trained with it says with which fraction and seed",
)


class HoldoutError(ValueError):
    """Holdout that cannot be made, or does not fit the split or the supernet."""


@dataclass(frozen=True)
class Holdout:
    """The cases that are held out of one fold's training cases, and how they were drawn.

    cases: their names, sorted. fraction: of the training cases, as asked for. split_sha256: of the fold's training and
    validation cases, 64 hexadecimal digits.
    """

    dataset: str
    plans_name: str
    configuration: str
    fold: int | str
    fraction: float
    seed: int
    cases: tuple[str, ...]
    split_sha256: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the cases' names, 64 hexadecimal digits."""
        return sha256_of_names(self.cases)

    def as_dict(self) -> dict[str, Any]:
        """The holdout as plain JSON values, which the file and the supernet's checkpoint keep."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "cases": list(self.cases)}

    def without(self, training: Iterable[str]) -> list[str]:
        """The training cases that stay, in their order."""
        held_out = set(self.cases)
        return [case for case in training if case not in held_out]

    def command(self, trainer: str) -> str:
        """The command that draws these cases."""
        place = ("-d", self.dataset, "-c", self.configuration, "-f", self.fold, "-p", self.plans_name, "-tr", trainer)
        return shell_line("slicemamba", "holdout", *place, "--fraction", self.fraction, "--seed", self.seed)


def holdout_path(fold_folder: str | Path) -> Path:
    """Path of a fold's holdout: beside the search's files, in the supernet's nnUNet_results/.../fold_X."""
    return slicing_search_folder(fold_folder) / HOLDOUT_FILE


def draw_holdout(training: Iterable[str], fraction: float, seed: int) -> tuple[str, ...]:
    """Draws `fraction` of the training cases, rounded: a function of (the sorted cases, fraction, seed) alone.

    Returns the names, sorted. Raises HoldoutError unless 0 < fraction < 1, seed is at least 0, and at least one case
    is held out and one stays.
    """
    check_draw(fraction, seed)
    cases = sorted(set(training))
    number = math.floor(fraction * len(cases) + 0.5)
    if not 0 < number < len(cases):
        raise HoldoutError(
            f"a fraction of {fraction} of {len(cases)} training cases holds out {number} of them; at least one must be "
            "held out and one must stay" + (f": give {1 / len(cases):.2g} or more" if number == 0 < len(cases) else "")
        )
    drawn = np.random.default_rng(seed).choice(len(cases), size=number, replace=False)
    return tuple(cases[index] for index in sorted(drawn.tolist()))


def check_draw(fraction: float, seed: int) -> None:
    """Raises HoldoutError naming the value and the rule unless 0 < fraction < 1 and seed >= 0."""
    if not 0 < fraction < 1:
        raise HoldoutError(f"the fraction is {fraction}, it must lie between 0 and 1; 0.2 is usual")
    if seed < 0:
        raise HoldoutError(f"the seed is {seed}, it must be at least 0")


def sha256_of_split(training: Iterable[str], validation: Iterable[str]) -> str:
    """SHA-256 of a fold's training and validation cases, whatever their order."""
    return sha256_of_names([*sorted(set(training)), "", *sorted(set(validation))])


def write_holdout(holdout: Holdout, path: Path) -> None:
    """Writes plain JSON; a reader finds the old file or the whole new one."""
    write_json(path, holdout.as_dict())


def read_holdout(path: Path) -> Holdout | None:
    """The holdout in a file, None if there is no file. HoldoutError if it cannot be read."""
    if not path.is_file():
        return None
    try:
        return holdout_of(_HOLDOUT.read(path))
    except JsonFileError as error:
        raise HoldoutError(f"the holdout file {error}") from error
    except ValueError as error:
        raise HoldoutError(f"the holdout file {path} cannot be used ({error}). {_HOLDOUT.remedy}") from error


def holdout_of(content: Mapping[str, Any]) -> Holdout:
    """The inverse of Holdout.as_dict. Raises ValueError, TypeError or KeyError for anything else."""
    version = content["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this package reads {SCHEMA_VERSION}")
    names = ("dataset", "plans_name", "configuration", "fold", "fraction", "seed", "split_sha256")
    cases = content["cases"]
    if not isinstance(cases, list) or not cases or not all(isinstance(case, str) for case in cases):
        raise ValueError("cases must be a list of at least one name")
    return Holdout(cases=tuple(sorted(cases)), **{name: content[name] for name in names})


def holdout_in(init_args: dict[str, Any]) -> Holdout | None:
    """The holdout in the init_args of a checkpoint, None if there is none."""
    content = init_args.get(CHECKPOINT_KEY)
    return None if content is None else holdout_of(content)


def check_fits(
    holdout: Holdout,
    path: Path,
    place: tuple[str, str, str, int | str],
    training: Iterable[str],
    validation: Iterable[str],
) -> None:
    """Raises HoldoutError unless the holdout is of this place and split.

    place: dataset, plans' name, configuration, fold. training, validation: the fold's cases before the holdout.
    """
    remedy = "Remove it with 'slicemamba holdout --remove' or make it again with 'slicemamba holdout'"
    of = (holdout.dataset, holdout.plans_name, holdout.configuration, holdout.fold)
    if of != place:
        shown, here = (" ".join(map(str, names)) for names in (of, place))
        raise HoldoutError(f"the holdout file {path} is of {shown}, it lies in the folder of {here}. {remedy}")
    training = list(training)
    strangers = sorted(set(holdout.cases) - set(training))
    if strangers or holdout.split_sha256 != sha256_of_split(training, validation):
        what = f"{strangers[0]!r} is no training case of it" if strangers else "its cases are others"
        raise HoldoutError(
            f"the holdout file {path} was made for another split than fold {holdout.fold} has now ({what}); restore "
            f"splits_final.json, or begin anew. {remedy}"
        )


def check_trained_with(recorded: Holdout | None, present: Holdout | None, fold_folder: Path, trainer: str) -> None:
    """Raises HoldoutError unless the holdout in a supernet's checkpoint is the one that is there now.

    recorded: of the checkpoint. present: of the fold's file. Either is None where there is none.
    """
    if recorded == present:
        return
    anew = f"move {fold_folder} away to train the supernet anew"
    if recorded is None:
        raise HoldoutError(
            f"the supernet in {fold_folder} was trained without a holdout, on all training cases; it cannot be chosen "
            f"with on {_described(present)}. Remove the holdout ('slicemamba holdout --remove') to choose on the "
            f"validation cases, or {anew} and call 'slicemamba holdout' before its training"
        )
    raise HoldoutError(
        f"the supernet in {fold_folder} was trained with {_described(recorded)}, now there is {_described(present)}. "
        f"Restore it with '{recorded.command(trainer)}', or {anew}"
    )


def _described(holdout: Holdout | None) -> str:
    if holdout is None:
        return "none"
    return f"a holdout of {len(holdout.cases)} cases (fraction {holdout.fraction}, seed {holdout.seed})"
