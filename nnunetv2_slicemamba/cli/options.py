"""Options that several commands share, with nnU-Net's letters."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nnunetv2_slicemamba.common.commands import WITHIN_VARIABLE
from nnunetv2_slicemamba.common.names import DEFAULT_SUPERNET_TRAINER, DEFAULT_TRAINER
from nnunetv2_slicemamba.common.shell import shell_line

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.selection import Selection

# more than these is a slip of the hand: years of evaluations, two years of minutes
MANY, MANY_MINUTES = 10_000, 1_000_000


class OptionError(Exception):
    """Value of an option that is none of those it can have; no ValueError, because typer shows those in its own way."""


def whole(flag: str, *, least: int, most: int, help: str, metavar: str | None = None) -> Any:
    """Option that takes a whole number from `least` to `most`."""

    def read(value: Any) -> int:
        text = str(value)
        # Python's int() also takes the digits of other scripts
        if re.fullmatch(r"[+-]?[0-9]{1,30}", text) and least <= int(text) <= most:
            return int(text)
        raise OptionError(f"{flag} is {shown(text)}; give a whole number from {least} to {most}")

    return typer.Option(flag, parser=read, metavar=metavar or f"{least}..{most}", help=help)


def number(
    flag: str,
    *,
    help: str,
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
        raise OptionError(f"{flag} is {shown(text)}; give a number {lower} and {upper}")

    return typer.Option(flag, parser=read, metavar=f"{lower}, {upper}", help=help)


def shown(text: str) -> str:
    """What was given, in quotes where it is no word; the beginning of what is very long."""
    short = text if len(text) <= 40 else f"{text[:40]}..."
    return short if re.fullmatch(r"[\w.+-]+", short) else repr(short)


def seed_option(help: str) -> Any:
    """Option --seed; every generator of random numbers takes these."""
    return whole("--seed", least=0, most=2**31 - 1, help=help)


def processes_option(help: str) -> Any:
    """Option -np: how many processes work beside each other."""
    return whole("-np", least=1, most=1024, help=help)


def gpu_memory_option() -> Any:
    """Option --gpu-memory of whatever plans."""
    return number("--gpu-memory", above=0, most=4096, help="GPU memory to plan for, in GB.")


def population_option() -> Any:
    """Option --population of whatever searches."""
    return whole("--population", least=1, most=MANY, help="Architectures per generation.")


def generations_option() -> Any:
    """Option --generations of whatever searches."""
    return whole("--generations", least=0, most=MANY, help="Generations after the random one.")


def say_next(console: Console, command: str) -> None:
    """Says what to type next; not within a command that goes on by itself."""
    if WITHIN_VARIABLE not in os.environ:
        console.print(f"Next: {command}")


def next_run(selection: Selection, trainer: str, folds: Sequence[str] | None = None) -> str:
    """The command that trains a selection's fold, or `folds`, with their slicings."""
    from nnunetv2_slicemamba.planning.present_plans import plans_flags

    plans = plans_flags(selection.preprocessed_folder, selection.plans_name)
    flags = ("-d", selection.dataset, "-c", selection.configuration, *plans)
    flags += () if trainer == DEFAULT_TRAINER else ("-tr", trainer)
    return shell_line("slicemamba", "run", *flags, "-f", *(folds or [str(selection.fold)]))


Dataset = Annotated[str, typer.Option("-d", help="Dataset, by ID (501) or name (Dataset501_NAME).")]
Configuration = Annotated[str, typer.Option("-c", help="Configuration of the plans, e.g. 2d or 3d_fullres.")]
Fold = Annotated[str, typer.Option("-f", help="Fold: 0, 1, ... or all.")]
Plans = Annotated[
    str | None, typer.Option("-p", help="Plans' name; default: the SliceMamba plans of the dataset, if they are one.")
]
SupernetTrainer = Annotated[str, typer.Option("-tr", help="Trainer of the supernet.", show_default=True)]
Device = Annotated[str, typer.Option("-device", help="cuda, cpu or mps; default: cuda where there is one.")]

PLANS: str | None = None
SUPERNET_TRAINER = DEFAULT_SUPERNET_TRAINER
