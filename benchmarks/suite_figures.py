"""Figures of the results page: differences to nnU-Net's default per data set, and Dice against hours of training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from suite_results import NETWORKS, NNUNET, NOT_TRAINED, SETS, SHORT, beside, hours, mean_beside, trained
from trainings import Trainings

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLOURS = dict(zip(NETWORKS, ("#D55E00", "#0072B2", "#009E73", "#4B5A68"), strict=True))
MARKERS = dict(zip(NETWORKS, "os^D", strict=True))
DESCRIPTION = "Description"  # of the PNG: hash of what is drawn


@dataclass(frozen=True)
class Drawing:
    """A figure of a page. data: all that it shows, empty if there is nothing. draw: draws it into a matplotlib figure.

    words: what it shows, for those who cannot see it.
    """

    file: str
    words: str
    data: list[dict[str, Any]]
    draw: Callable[[Any, list[dict[str, Any]]], None]

    def markdown(self) -> str:
        return f"![{self.words}]({self.file})" if self.data else f"Nothing to draw: {NOT_TRAINED}."

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()

    def is_current(self, folder: Path = DOCS) -> bool:
        """True if the file shows these data, or there are none and no file."""
        file = folder / self.file
        if not self.data or not file.is_file():
            return not self.data and not file.is_file()
        with Image.open(file) as image:
            return image.info.get(DESCRIPTION) == self.digest

    def write(self, folder: Path = DOCS) -> None:
        """Draws the file, or deletes it where there is nothing to show."""
        if not self.data:
            (folder / self.file).unlink(missing_ok=True)
            return
        import matplotlib
        from matplotlib.figure import Figure

        from nnunetv2_slicemamba.search.figures.style import DPI, STYLE

        with matplotlib.rc_context(STYLE):
            figure = Figure(layout="constrained")
            self.draw(figure, self.data)
            figure.savefig(folder / self.file, dpi=DPI, metadata={DESCRIPTION: self.digest, "Software": None})


def figures(trainings: Trainings) -> dict[str, Drawing]:
    """The figures of the results page by the name in its markers."""
    differences = "Differences to nnU-Net's default in Dice points with 95 % intervals, per data set and in their mean"
    return {
        "differences": Drawing("results_differences.png", differences, _differences(trainings), _draw_differences),
        "hours": Drawing(
            *("results_hours.png", "Dice against hours of training, per data set", _hours(trainings), _draw_hours)
        ),
    }


def _differences(trainings: Trainings) -> list[dict[str, Any]]:
    found = []
    by_set = {words: trained(trainings, data, SHORT) for data, words in SETS.items()}
    for name in NETWORKS:
        if name == NNUNET:
            continue
        each = {words: beside(trainings, one, name) for words, one in by_set.items()}
        for words, one in {**each, "mean": mean_beside(trainings, name)}.items():
            if one is not None:
                low, high = (None if math.isnan(bound) else round(bound, 3) for bound in (one.low, one.high))
                found.append({"network": name, "set": words, "points": round(one.points, 3), "low": low, "high": high})
    return found


def _draw_differences(figure: Any, data: list[dict[str, Any]]) -> None:
    figure.set_size_inches(7.2, 3.0)
    axes = figure.subplots()
    places = [words for words in (*SETS.values(), "mean") if any(row["set"] == words for row in data)]
    axes.axhline(0, color=COLOURS[NNUNET], linewidth=0.8)
    for i, name in enumerate(name for name in NETWORKS if name != NNUNET):
        own = [row for row in data if row["network"] == name]
        x = [places.index(row["set"]) + 0.18 * (i - 1) for row in own]
        y = [row["points"] for row in own]
        # BCa intervals need not hold the difference itself
        below = [0 if row["low"] is None else max(0, row["points"] - row["low"]) for row in own]
        above = [0 if row["high"] is None else max(0, row["high"] - row["points"]) for row in own]
        style = {"color": COLOURS[name], "fmt": MARKERS[name], "markersize": 5, "capsize": 2, "linewidth": 1}
        axes.errorbar(x, y, yerr=[below, above], label=NETWORKS[name], **style)
    axes.set_xticks(range(len(places)), places)
    axes.set_ylabel("Dice points to nnU-Net's default")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3)


def _hours(trainings: Trainings) -> list[dict[str, Any]]:
    found = []
    for data, words in SETS.items():
        for name, folds in trained(trainings, data, SHORT).items():
            for row in (row for runs in folds.values() for row in runs):
                took = hours([row])
                if not math.isnan(took):
                    point = {"hours": round(took, 4), "dice": round(100 * float(row["dice"]), 3)}
                    found.append({"network": name, "set": words, **point})
    return found


def _draw_hours(figure: Any, data: list[dict[str, Any]]) -> None:
    places = [words for words in SETS.values() if any(row["set"] == words for row in data)]
    figure.set_size_inches(max(4.5, 1.8 * len(places) + 0.4), 2.3)
    for axes, words in zip(figure.subplots(1, len(places), squeeze=False)[0], places, strict=True):
        axes.set_title(words)
        for name in NETWORKS:
            own = [row for row in data if (row["set"], row["network"]) == (words, name)]
            x, y = [row["hours"] for row in own], [row["dice"] for row in own]
            axes.plot(x, y, MARKERS[name], color=COLOURS[name], markersize=5, linestyle="", label=NETWORKS[name])
        axes.set_xlim(0, 1.15 * max(row["hours"] for row in data if row["set"] == words))
        axes.margins(y=0.2)
        axes.set_xlabel("hours")
    figure.axes[0].set_ylabel("Dice")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(NETWORKS))
