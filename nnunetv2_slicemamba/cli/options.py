"""Options that several commands share, with nnU-Net's letters."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nnunetv2_slicemamba.cli.completion import (
    completing,
    configurations,
    datasets,
    final_trainers,
    plans,
    supernet_trainers,
)
from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER, DEFAULT_TRAINER, WITHIN_VARIABLE
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import is_quiet
from nnunetv2_slicemamba.slicing.candidate_sets import named_candidates

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.selection import Selection

# more than these is a slip of the hand: years of evaluations, two years of minutes
MANY, MANY_MINUTES = 10_000, 1_000_000


class OptionError(Exception):
    """Value of an option that is none of those it can have; no ValueError, because typer shows those in its own way."""


def whole(*flags: str, least: int, most: int, help: str, metavar: str | None = None) -> Any:
    """Option that takes a whole number from `least` to `most`; an upper limit against slips is not shown."""

    def read(value: Any) -> int:
        text = str(value)
        # Python's int() also takes the digits of other scripts
        if re.fullmatch(r"[+-]?[0-9]{1,30}", text) and least <= int(text) <= most:
            return int(text)
        raise OptionError(f"{flags[0]} is {shown(text)}; give a whole number from {least} to {most}")

    return typer.Option(
        *flags, parser=read, metavar=metavar or ("N" if most >= MANY else f"{least}..{most}"), help=help
    )


def number(
    *flags: str,
    help: str,
    metavar: str | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Option that takes a number of a range: at least `least` or above `above`, at most `most` or below `below`."""
    low, high = (above if least is None else least) or 0.0, (below if most is None else most) or 0.0
    lower = f"{'above' if least is None else 'at least'} {low:.10g}"
    upper = f"{'below' if most is None else 'at most'} {high:.10g}"

    def read(value: Any) -> float:
        text = str(value)
        try:
            # Python's float() also takes the digits of other scripts
            found = float(text) if text.isascii() else math.nan
        except ValueError:
            found = math.nan  # which is in no range
        if low <= found <= high and (least is not None or found > low) and (most is not None or found < high):
            return found
        raise OptionError(f"{flags[0]} is {shown(text)}; give a number {lower} and {upper}")

    return typer.Option(*flags, parser=read, metavar=metavar or f"{low:g}..{high:g}", help=help)


def text(
    *flags: str, metavar: str, help: str, names: Callable[[], Iterable[str]] | Iterable[str] = (), **more: Any
) -> Any:
    """Option that takes a word or a path, shown as `metavar`; names: what a shell completes."""
    complete = completing(names) if names else None
    return typer.Option(*flags, metavar=metavar, help=help, autocompletion=complete, **more)


def choice(*flags: str, names: Sequence[str], help: str) -> Any:
    """Option that takes one of a few names, which the command checks."""
    return text(*flags, metavar="|".join(names), help=help, names=names)


def flag(*names: str, help: str) -> Any:
    """Option without a value."""
    return typer.Option(*names, help=help)


def shown(text: str) -> str:
    """What was given, in quotes where it is no word; the beginning of what is very long."""
    short = text if len(text) <= 40 else f"{text[:40]}..."
    return short if re.fullmatch(r"[\w.+-]+", short) else repr(short)


def seed_option(help: str) -> Any:
    """Option --seed; every generator of random numbers takes these."""
    return whole("--seed", least=0, most=2**31 - 1, help=help)


def processes_option(help: str) -> Any:
    """Option -np: how many processes work beside each other."""
    return whole("-np", "--processes", least=1, most=1024, help=help)


def gpu_memory_option(help: str) -> Any:
    """Option --gpu-memory of whatever plans."""
    return number("--gpu-memory", metavar="GB", above=0, most=4096, help=help)


def candidates_option(help: str) -> Any:
    """Option --candidates of whatever plans."""

    def read(value: Any) -> str:
        text = str(value)
        try:
            for n_dims in (2, 3):
                named_candidates(text, n_dims)
        except ValueError as error:
            raise OptionError(f"--candidates is {shown(text)}: {error}") from error
        return text

    return typer.Option("--candidates", parser=read, metavar="paper|wide|LIST", help=help)


def share_option(flag: str, help: str) -> Any:
    """Option that takes a share in percent, such as 60%; its value is 0.6."""

    def read(value: Any) -> float:
        found = re.fullmatch(r"([0-9]{1,3}(\.[0-9]{1,6})?)%", str(value))
        if found and 0 < float(found[1]) <= 100:
            return float(found[1]) / 100
        raise OptionError(f"{flag} is {shown(str(value))}; give a share above 0% and at most 100%, for example 60%")

    return typer.Option(flag, parser=read, metavar="SHARE%", help=help)


def limit_option(flag: str, help: str) -> Any:
    """Option that takes a limit of a measured cost in the unit that ends its name."""
    return number(flag, metavar=flag.rpartition("-")[2].upper(), above=0, most=1e7, help=help)


def finalists_option() -> Any:
    """Option --finalists of whatever searches."""
    return whole(
        "--finalists",
        least=2,
        most=100,
        help="Train this many of the best slicings for a tenth of the final training, and take the best of them.",
    )


def population_option() -> Any:
    """Option --population of whatever searches."""
    return whole("--population", least=1, most=MANY, help="Architectures per generation.")


def generations_option() -> Any:
    """Option --generations of whatever searches."""
    return whole("--generations", least=0, most=MANY, help="Generations after the random one.")


def dataset_option() -> Any:
    """Option -d: a dataset that is there."""
    return text("-d", "--dataset", metavar="DATASET", help="ID (501) or name (Dataset501_NAME).", names=datasets)


def configuration_option(help: str) -> Any:
    """Option -c: a configuration, or several of them."""
    return text("-c", "--configuration", metavar="CONFIG", help=help, names=configurations)


def fold_option(help: str) -> Any:
    """Option -f: a fold, or several of them."""
    return text("-f", "--fold", metavar="FOLD", help=help)


def plans_option(help: str) -> Any:
    """Option -p: name of plans."""
    return text("-p", "--plans", metavar="PLANS", help=help, names=plans)


def trainer_option(help: str, names: Callable[[], Iterable[str]] = final_trainers) -> Any:
    """Option -tr: class name of a trainer."""
    return text("-tr", "--trainer", metavar="TRAINER", help=help, names=names)


def output_option(help: str, metavar: str = "FILE") -> Any:
    """Option -o: what is written."""
    return text("-o", "--output", metavar=metavar, help=help)


def say_next(console: Console, command: str) -> None:
    """Says what to type next; not within a command that goes on by itself, nor where only results are wanted."""
    if WITHIN_VARIABLE not in os.environ and not is_quiet():
        console.print(f"Next: {command}")


def next_run(selection: Selection, trainer: str, folds: Sequence[str] | None = None) -> str:
    """The command that trains a selection's fold, or `folds`, with their slicings."""
    from nnunetv2_slicemamba.planning.present_plans import plans_flags

    plans = plans_flags(selection.preprocessed_folder, selection.plans_name)
    flags = ("-d", selection.dataset, "-c", selection.configuration, *plans)
    flags += () if trainer == DEFAULT_TRAINER else ("-tr", trainer)
    return shell_line("slicemamba", "run", *flags, "-f", *(folds or [str(selection.fold)]))


Dataset = Annotated[str, dataset_option()]
Configuration = Annotated[str, configuration_option("Configuration of the plans, e.g. 2d or 3d_fullres.")]
Fold = Annotated[str, fold_option("Fold: 0, 1, ... or all.")]
Plans = Annotated[
    str | None, plans_option("Name of the plans. Default: the SliceMamba plans of the dataset, if there is only one.")
]
SupernetTrainer = Annotated[str, trainer_option("Trainer of the supernet.", supernet_trainers)]
Device = Annotated[
    str,
    text(
        *("-device", "--device"),
        metavar="cuda|cpu|mps",
        help="Where to compute; auto: cuda where there is one.",
        names=("cuda", "cpu", "mps", "auto"),
    ),
]

PLANS: str | None = None
SUPERNET_TRAINER = DEFAULT_SUPERNET_TRAINER
