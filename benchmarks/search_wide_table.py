"""Tables of search_wide.py: how well the fitness orders slicings, and what the searched ones are worth."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import results
from results import Row
from trainings import Pairs, Trainings, finished, markdown, mean_dice

from nnunetv2_slicemamba.comparison.correlation import FEWEST, Correlation, rank_agreement
from nnunetv2_slicemamba.comparison.results import MARGIN
from nnunetv2_slicemamba.comparison.statistics import equivalence, spread

EXPECTED = Path(__file__).parent / "candidates" / "wide.json"
CONTROLS = ("fixed", "no-scan", "cheapest")
RANDOM = "random-at-budget"
NOT_TRAINED, NOT_SEARCHED = "not trained", "not searched"


class Wide:
    """Searches and their trainings. arms: rows of arms.csv by data set and name; trained: runs by the same."""

    def __init__(self, folder: Path) -> None:
        self.trainings = Trainings(folder)
        self.arms: dict[str, dict[str, Row]] = {}
        for row in results.read("arms", folder):
            self.arms.setdefault(row["data"], {})[row["arm"]] = row
        self.expected: dict[str, dict[str, Any]] = json.loads(EXPECTED.read_text(encoding="utf-8"))["expected"]

    @property
    def left(self) -> list[str]:
        """Data sets of which something was expected and nothing is known."""
        return [data for data in self.expected if data not in self.arms]

    def trained(self, data: str) -> dict[str, list[Row]]:
        """Finished trainings of a data set's arms, by arm: those of the supernet that arms.csv names."""
        arms = self.arms[data]
        of = {f"wide-{arm}": row for arm, row in arms.items()}
        rows = [row for row in self.trainings.runs if row["data"] == data and row["candidate"] in of]
        rows = [row for row in rows if row["start_from"] == of[row["candidate"]]["supernet"]]
        return {name.removeprefix("wide-"): folds[0] for name, folds in finished(rows).items() if 0 in folds}

    def expected_of(self, data: str, key: str) -> str:
        """The prediction as text; "-" for a data set without one."""
        value = self.expected.get(data, {}).get(key)
        return "-" if value is None else f"{value:+.2f}"


def ranking(folder: Path = results.RESULTS) -> str:
    """Kendall's tau of the front's slicings between fitness and Dice, and between training step and Dice."""
    head = ("data", "slicings trained", "fitness and Dice", "expected", "step and Dice", "SD of the Dice, points")
    wide, lines = Wide(folder), []
    for data, arms in wide.arms.items():
        trained = {name: runs for name, runs in wide.trained(data).items() if arms[name]["part"] == "front"}
        dice = [mean_dice(runs) for runs in trained.values()]
        columns = [[float(arms[name][key]) for name in trained] for key in ("fitness", "step_ms")]
        fitness, step = (_tau(values, dice) for values in columns)
        number = f"{len(dice)} of {sum(row['part'] == 'front' for row in arms.values())}"
        sd = f"{100 * spread(dice):.2f}" if len(dice) > 1 else "-"
        lines.append((data, number, fitness, wide.expected_of(data, "tau"), step, sd))
    if lines:
        lines += [(data, NOT_SEARCHED, "-", wide.expected_of(data, "tau"), "-", "-") for data in wide.left]
    return markdown(head, lines)


def _tau(values: Sequence[float], dice: Sequence[float]) -> str:
    if len(dice) < FEWEST or len(set(values)) == 1 or len(set(dice)) == 1:
        return "-"
    found: Correlation = rank_agreement(values, dice).kendall
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}), p {found.p_value:.2g}"


def budget(folder: Path = results.RESULTS) -> str:
    """Differences in Dice points between what was searched and its controls, with 95 % intervals over the cases."""
    head = ("data", "budget, share of the fixed step", "cheapest", "difference", "Dice points", "expected", "trainings")
    wide, lines = Wide(folder), []
    for data, arms in wide.arms.items():
        one, trained = next(iter(arms.values())), wide.trained(data)
        shares = [f"{float(one[key]) / float(one['fixed_ms']):.0%}" for key in ("limit_ms", "least_ms")]
        drawn = [row for name in trained if name.startswith(RANDOM) for row in trained[name]]
        fixed = [trained[name] for name in CONTROLS if name in trained]
        best = max(fixed, key=mean_dice, default=[])
        for key, words, (left, right) in (
            ("searched_less_fixed", "searched less fixed", (trained.get("searched", []), trained.get("fixed", []))),
            ("searched_less_random", "searched less random", (trained.get("searched", []), drawn)),
            ("dice_less_best", "searched for Dice alone less the best fixed", (trained.get("dice-alone", []), best)),
        ):
            text = _difference(wide.trainings, left, right, with_test=key == "searched_less_fixed")
            numbers = f"{len(left)}, {len(right)}"
            lines.append((data, *shares, words, text, wide.expected_of(data, key), numbers))
    if lines:
        lines += [(data, NOT_SEARCHED, *"-----") for data in wide.left]
    return markdown(head, lines)


def _difference(trainings: Trainings, left: Sequence[Row], right: Sequence[Row], with_test: bool) -> str:
    """Dice points between two lists of trainings; with_test: and whether their equivalence is shown."""
    if not left or not right:
        return NOT_TRAINED
    pairs: Pairs = [(left, right)]
    points, found = 100 * (mean_dice(left) - mean_dice(right)), trainings.paired(pairs)
    text, known = f"{points:+.2f}", trainings.difference(pairs)
    if known is not None and not math.isnan(known.low):
        text += f" ({100 * known.low:+.2f} to {100 * known.high:+.2f})"
    if with_test and found is not None:
        text += f"; within {100 * MARGIN:.1f}: {'shown' if equivalence(*found, MARGIN).is_shown else 'not shown'}"
    return text


def arms(folder: Path = results.RESULTS) -> str:
    """The slicings of part budget with step, fitness and Dice."""
    head = ("data", "arm", "what each block does", "of the fixed step", "fitness", "Dice of each training", "mean")
    wide, lines = Wide(folder), []
    for data, arms_of_data in wide.arms.items():
        trained = wide.trained(data)
        for name, row in arms_of_data.items():
            if row["part"] != "budget":
                continue
            share = f"{float(row['step_ms']) / float(row['fixed_ms']):.0%}"
            fitness = f"{float(row['fitness']):.4f}" if row["fitness"] else "-"
            dice = [float(one["dice"]) for one in trained.get(name, [])]
            each = ", ".join(f"{value:.4f}" for value in dice) or NOT_TRAINED
            mean = f"{fmean(dice):.4f}" if dice else "-"
            lines.append((data, name, row["slicing"], share, fitness, each, mean))
    return markdown(head, lines)
