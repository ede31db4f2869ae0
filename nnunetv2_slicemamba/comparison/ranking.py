"""Result of ranking: the arms of a comparison with fitness and retrained Dice, and how well the two orders agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.comparison.correlation import RankAgreement
from nnunetv2_slicemamba.slicing.candidates import Architecture


@dataclass(frozen=True)
class RankedArm:
    """One arm of a comparison with its fitness and its retrained Dice.

    fitness: of the arm's path in the supernet. source: where the fitness is from. dice: mean over the arm's trainings;
    spread: their standard deviation, NaN for one training. parameters, flops: as `Work` has them.
    """

    name: str
    kind: str
    architecture: Architecture
    fitness: float
    source: str
    dice: float
    spread: float
    trainings: int
    parameters: int
    flops: int


@dataclass(frozen=True)
class Ranking:
    """Arms, agreement and conclusion.

    left_out: names of arms and why. file, figure: the files that were written. controls: of parameters and FLOPs with
    the Dice, by their names; None where all arms have the same number.
    """

    arms: tuple[RankedArm, ...]
    agreement: RankAgreement
    conclusion: str
    left_out: Mapping[str, str]
    file: Path
    figure: Path
    controls: Mapping[str, RankAgreement | None]
