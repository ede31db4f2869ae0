"""Scatter plot of the retrained Dice over the supernet's fitness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.comparison.correlation import RankAgreement
from nnunetv2_slicemamba.comparison.ranking import RankedArm
from nnunetv2_slicemamba.search.figures.style import STYLE
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# kind: colour (Okabe and Ito's, which colour-blind readers can tell apart) and marker
_KINDS = {
    "searched": ("#D55E00", "*", 110),
    "consensus": ("#CC79A7", "P", 45),
    "front": ("#E69F00", "^", 32),
    "fixed": ("#0072B2", "s", 28),
    "random": ("#7F7F7F", "o", 28),
    "random-at-budget": ("#56B4E9", "o", 28),
    "file": ("#009E73", "D", 28),
}


def write_scatter(arms: Sequence[RankedArm], found: RankAgreement, title: str, path: Path) -> Path:
    """One point per arm, bars of one standard deviation over its trainings; 3.5 x 3.3 inches at 200 dots per inch."""
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
        axes.set_xlabel(f"fitness in the supernet ({title_of(FITNESS_DEFINITION)})")
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
        figure.draw_without_rendering()
        _name_points(axes, arms)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=200, format="png")
    return path


# where a name may stand, in points from its arm: to the right, left, above, below, and at the corners
_PLACES = ((7, 0), (-7, 0), (0, 9), (0, -9), (7, 7), (7, -7), (-7, 7), (-7, -7))


def _name_points(axes: Axes, arms: Sequence[RankedArm]) -> None:
    """Names beside the points, each at the first place where it covers no other name, point or bar."""
    from matplotlib.transforms import Bbox

    taken = []
    for arm in arms:
        sd = 0.0 if math.isnan(arm.spread) else arm.spread
        (x, low), (_, high) = axes.transData.transform([(arm.fitness, arm.dice - sd), (arm.fitness, arm.dice + sd)])
        y = axes.transData.transform((arm.fitness, arm.dice))[1]
        taken += [Bbox([[x - 1, low], [x + 1, high]]), Bbox([[x - 5, y - 5], [x + 5, y + 5]])]
    within = axes.get_window_extent()
    for arm in arms:
        name = arm.name.replace("x", "\N{MULTIPLICATION SIGN}") if arm.kind == "fixed" else arm.name
        found = []
        for x, y in _PLACES:
            text = axes.annotate(
                name,
                (arm.fitness, arm.dice),
                xytext=(x, y),
                textcoords="offset points",
                ha="center" if x == 0 else "left" if x > 0 else "right",
                va="center",
                fontsize=6.5,
                color="#333333",
            )
            box = text.get_window_extent()
            outside = box.x0 < within.x0 or box.x1 > within.x1 or box.y0 < within.y0 or box.y1 > within.y1
            found.append((3 * outside + sum(box.overlaps(other) for other in taken), text, box))
        best = min(found, key=lambda one: one[0])
        for _, text, _ in found:
            if text is not best[1]:
                text.remove()
        taken.append(best[2])
