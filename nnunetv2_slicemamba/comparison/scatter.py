"""The supernet's fitness beside the retrained Dice, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.comparison.correlation import Agreement
from nnunetv2_slicemamba.search.atomic import replacing
from nnunetv2_slicemamba.search.figure_style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunetv2_slicemamba.comparison.rank import RankedArm

# kind: colour (Okabe and Ito's, which colour-blind readers can tell apart) and marker
_KINDS = {
    "searched": ("#D55E00", "*", 110),
    "consensus": ("#CC79A7", "P", 45),
    "fixed": ("#0072B2", "s", 28),
    "random": ("#7F7F7F", "o", 28),
    "file": ("#009E73", "D", 28),
}


def write_scatter(arms: Sequence[RankedArm], found: Agreement, title: str, path: Path) -> Path:
    """One point per arm, bars of one standard deviation over its trainings; 3.5 x 3.2 inches at 200 dots per inch."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(3.5, 3.3), layout="constrained")
        axes = figure.subplots()
        axes.margins(0.12)
        for kind in dict.fromkeys(arm.kind for arm in arms):
            colour, marker, size = _KINDS[kind]
            own = [arm for arm in arms if arm.kind == kind]
            x, y = [arm.fitness for arm in own], [arm.dice for arm in own]
            errors = [0.0 if math.isnan(arm.spread) else arm.spread for arm in own]
            axes.errorbar(x, y, yerr=errors, fmt="none", ecolor=colour, elinewidth=0.8, capsize=0)
            axes.scatter(x, y, s=size, marker=marker, color=colour, lw=0.6, ec="white", label=kind, zorder=3)
        figure.draw_without_rendering()
        _name_points(axes, arms)
        axes.set_xlabel("fitness in the supernet (mean foreground Dice)")
        axes.set_ylabel("Dice after retraining" + (" (bar: SD)" if any(arm.trainings > 1 for arm in arms) else ""))
        tau, rho = found.kendall, found.spearman
        axes.set_title(
            f"{title}\n"
            f"Kendall's \N{GREEK SMALL LETTER TAU} = {tau.value:.2f} [{tau.low:.2f}, {tau.high:.2f}]\n"
            f"Spearman's \N{GREEK SMALL LETTER RHO} = {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}], n = {found.n}",
            fontsize=6.5,
            fontweight="normal",
        )
        axes.locator_params(nbins=5)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=200, format="png")
    return path


def _name_points(axes: Axes, arms: Sequence[RankedArm]) -> None:
    """Names beside the points, to the side that has more room; each a little away from those already placed."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    placed: list[tuple[float, float]] = []
    for arm in sorted(arms, key=lambda arm: arm.dice):
        x, y = (arm.fitness - left) / (right - left), (arm.dice - bottom) / (top - bottom)
        side = -1 if x > 0.75 else 1
        crowded = any(abs(x - a) < 0.25 and abs(y - b) < 0.04 for a, b in placed)
        placed.append((x, y))
        axes.annotate(
            arm.name.replace("x", "\N{MULTIPLICATION SIGN}") if arm.kind == "fixed" else arm.name,
            (arm.fitness, arm.dice),
            xytext=(6 * side, 7 if crowded else 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=6.5,
            color="#333333",
        )
