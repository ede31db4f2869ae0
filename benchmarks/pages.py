"""Maker of the tables and figures in docs/results.md, docs/performance.md and README.md, from benchmarks/results.

    python benchmarks/pages.py            # writes the tables between the pages' markers, and the figures
    python benchmarks/pages.py --check    # exits with 1 where a page or figure differs from what would be written

A marker is a line `<!-- table: NAME -->`; the table ends at the next `<!-- end -->`. Everything else on a page is text.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, median

import costs
import paper_table
import results
import search_wide_table
import suite_figures
import suite_results
from results import Row
from scipy.stats import kendalltau
from trainings import Trainings, finished, markdown, mean_dice, percent, points, reference_of

from nnunetv2_slicemamba.comparison.statistics import spread

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = (DOCS / "results.md", DOCS / "performance.md", ROOT / "README.md")
MARKED = re.compile(r"^<!-- table: (.+?) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
CONTROLS = re.compile(r"-(random\d+|\d+(x\d+)+)$")


def by_fold(trainings: Trainings) -> str:
    """A table per dataset and fold: every candidate with the Dice of its trainings beside the reference."""
    head = ("candidate", "Dice of each training", "mean ± SD", "to nnU-Net", "95 % over the cases", "M parameters")
    parts: list[str] = []
    for (data, budget), runs in trainings.groups().items():
        candidates, against = finished(runs), str(reference_of(runs))
        for fold in sorted(candidates.get(against, {})):
            reference, rows = candidates[against][fold], []
            for name, folds in candidates.items():
                if fold not in folds:
                    continue
                own = folds[fold]
                sd, apart = spread([float(r["dice"]) for r in own]), mean_dice(own) - mean_dice(reference)
                interval = "-" if name == against else trainings.interval([(own, reference)])
                known = trainings.known(own)
                partly = f" ({known} of {len(own)})" if interval != "-" and known < len(own) else ""
                rows.append(
                    (
                        name,
                        ", ".join(percent(float(r["dice"])) for r in own),
                        percent(mean_dice(own)) + ("" if math.isnan(sd) else f" ± {percent(sd)}"),
                        points(apart),
                        interval + partly,
                        _millions(own[0]["parameters"]),
                    )
                )
            rows.sort(key=lambda row: -float(row[3]))
            parts += [f"**{data}, fold {fold}**, {budget}", markdown(head, rows)]
    return "\n\n".join(parts)


def over_folds(trainings: Trainings) -> str:
    """The candidates that were trained on several folds beside the reference; every fold counts alike.

    The last column leaves out fold 0, on which candidates are chosen.
    """
    head = ("data", "candidate", "folds", "trainings", "to nnU-Net", "95 % over the cases", "fold by fold")
    rows = []
    for (data, _), runs in trainings.groups().items():
        candidates, against = finished(runs), str(reference_of(runs))
        for name, folds in candidates.items():
            pairs = {f: (folds[f], of) for f, of in sorted(candidates.get(against, {}).items()) if f in folds}
            if name == against or len(pairs) < 2:
                continue
            apart = {fold: mean_dice(one) - mean_dice(other) for fold, (one, other) in pairs.items()}
            other_folds = [fold for fold in pairs if fold]
            without = points(fmean(apart[fold] for fold in other_folds))
            if len(other_folds) > 1:
                without += f" ({trainings.interval([pairs[fold] for fold in other_folds])})"
            rows.append(
                (
                    *(data, name, ", ".join(map(str, pairs)), str(sum(len(one) for one, _ in pairs.values()))),
                    *(points(fmean(apart.values())), trainings.interval(pairs.values())),
                    *(", ".join(points(value) for value in apart.values()), without),
                )
            )
    return markdown((*head, "without fold 0"), rows)


def unfinished(trainings: Trainings) -> str:
    """A sentence with the numbers of runs that have no result."""
    number = Counter(row["state"] for row in trainings.runs)
    return (
        f"{number['unfinished']} trainings were stopped before their end. "
        f"The results of {number['lost']} were lost before they were copied. `runs.csv` has them with the reason."
    )


def searched(trainings: Trainings) -> str:
    """Searched slicings beside fixed and random ones that were trained in the same way."""
    head = ("data", "budget", "searched", "controls", "mean ± SD of the controls", "best control", "Kendall's tau")
    rows = []
    for (data, budget), runs in trainings.groups(compared=False).items():
        candidates = {name: folds[0] for name, folds in finished(runs).items() if 0 in folds}
        own = [row for name, found in candidates.items() if name.endswith("-searched") for row in found]
        controls = [row for name, found in candidates.items() if CONTROLS.search(name) for row in found]
        if not own or not controls:
            continue
        # arms of one supernet, one training each
        of = own[0]["start_from"]
        arms = [r for r in (own[0], *controls) if r["start_from"] == of and r["fitness"]]
        tau = kendalltau([float(r["fitness"]) for r in arms], [float(r["dice"]) for r in arms])
        best = max(controls, key=lambda row: float(row["dice"]))
        rows.append(
            (
                *(data, budget, ", ".join(percent(float(row["dice"])) for row in own), str(len(controls))),
                f"{percent(mean_dice(controls))} ± {percent(spread([float(row['dice']) for row in controls]))}",
                f"{percent(float(best['dice']))} ({best['slicing']})",
                f"{tau.statistic:.2f}, p {tau.pvalue:.2f}, {len(arms)} arms" if len(arms) > 4 else "-",
            )
        )
    return markdown(head, rows)


def worth(folder: Path = results.RESULTS) -> str:
    """The gains of searches.csv on the cases that chose a path and on the others."""
    head = ("data", "supernet", "path", "gain where it was chosen", "gain on other cases", "better than random there")
    rows = [
        (
            *(row["data"], row["supernet"], f"{row['path']}, {row['searches']} times"),
            *(f"{float(row[f'gain_{w}']):+.2f} ± {float(row[f'gain_{w}_sd']):.2f}" for w in ("choosing", "others")),
            f"{row['above_random']} of {row['searches']}",
        )
        for row in results.read("searches", folder)
    ]
    return markdown(head, rows)


def others(trainings: Trainings) -> str:
    """The trainings without nnU-Net's beside them that compare no slicings."""
    rows = []
    for (data, budget), runs in trainings.groups(compared=False).items():
        for name, folds in finished(runs).items():
            if CONTROLS.search(name):
                continue
            for fold, own in folds.items():
                dice = ", ".join(percent(float(row["dice"])) for row in own)
                rows.append((data, str(fold), budget, name, dice, own[0]["start_from"]))
    return markdown(("data", "fold", "budget", "candidate", "Dice of each training", "started from"), rows)


def timings(benchmark: str, figures: Sequence[str], folder: Path = results.RESULTS) -> str:
    """A row per work, size and device, a column per figure; of a figure measured on several dates the latest counts.

    Of a figure that was measured several times then, median and range are shown.
    """
    cells: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in results.read("timings", folder):
        if row["benchmark"] == benchmark and row["figure"] in figures:
            of = cells.setdefault((row["work"], row["size"], row["device"]), {})
            before = of.setdefault(row["figure"], [])
            if before and (before[0]["date"], before[0]["commit"]) != (row["date"], row["commit"]):
                if row["date"] < before[0]["date"]:
                    continue
                before.clear()
            before.append(row)
    shown = [figure for figure in figures if any(figure in of for of in cells.values())]
    units = {row["figure"]: row["unit"] for row in chain(*(rows for of in cells.values() for rows in of.values()))}
    head = ("work", "size", "device", *(f"{figure} ({units[figure]})" for figure in shown), "measured")
    lines = []
    for key, of in cells.items():
        dates = sorted({row["date"] for rows in of.values() for row in rows})
        lines.append((*key, *(_value(of.get(figure, [])) for figure in shown), " and ".join(dates)))
    return markdown(head, lines)


def _value(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    values = [float(row["value"]) for row in rows]
    if len(values) == 1:
        return f"{values[0]:,.4g}"
    return f"{median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g}, {len(values)} runs)"


def _millions(parameters: str) -> str:
    return f"{float(parameters) / 1e6:.1f}" if parameters else "-"


def tables(trainings: Trainings) -> dict[str, Callable[[], str]]:
    """The makers of all tables, by the name in the pages' markers."""
    steps = ("step", "step as a graph", "peak", "published step", "published peak", "host, step as a graph")
    scan = ("forward", "forward + backward", "published forward", "published forward + backward")
    inference = ("inference", "inference as a graph", "published inference")
    first = trainings.on_folds(first=True)
    drawn = suite_figures.figures(first)
    return {
        "results": lambda: suite_results.short(first),
        "confirmed": lambda: suite_results.confirmed(trainings),
        "designs": lambda: suite_results.designs(first),
        "augmentations": lambda: suite_results.augmentations(first),
        "long": lambda: suite_results.long(trainings),
        "paper": lambda: paper_table.table(results.read("paper")),
        **{f"figure {name}": figure.markdown for name, figure in drawn.items()},
        "over folds": lambda: over_folds(trainings),
        "by fold": lambda: by_fold(trainings),
        "unfinished": lambda: unfinished(trainings),
        "searched": lambda: searched(trainings),
        "worth": worth,
        "wide ranking": search_wide_table.ranking,
        "wide budget": search_wide_table.budget,
        "wide arms": search_wide_table.arms,
        "wide search": lambda: timings(
            "search_wide", ("command, 1,050 architectures", "evaluations, 1,050 architectures")
        ),
        "others": lambda: others(trainings),
        "costs": costs.table,
        "epochs": lambda: timings("accuracy", ("epoch, median of four", "epoch, the last of four")),
        "scan": lambda: timings("scan_gpu", scan),
        "steps": lambda: timings("network_gpu", steps),
        "inference": lambda: timings("network_gpu", inference),
        "volumes": lambda: timings("volumes_gpu", steps),
        "cpu": lambda: timings("scan_cpu", ("forward + backward", "memory")),
        "search": lambda: timings("search_gpu", ("architectures", "1,050 architectures")),
        "augmentation": lambda: timings(
            "augmentation_gpu",
            (
                "epoch",
                "step alone",
                "CPU of all processes per epoch",
                "start to first step",
                "augmentation alone",
                "its memory",
            ),
        ),
        "folds": lambda: timings(
            "folds_gpu",
            (
                *("in a row", "at once", "share of the row"),
                *("CPU in a row", "CPU at once", "GPU in a row", "GPU at once", "memory at once"),
            ),
        ),
        "pretraining": lambda: timings("pretrain_gpu", ("images", "step", "peak", "parameters")),
        "memory": lambda: timings("memory_gpu", ("estimate", "reserved")),
        "memory error": lambda: timings("memory_gpu", ("mean", "largest", "mean, training left out of the fit")),
    }


def made(text: str, makers: dict[str, Callable[[], str]]) -> str:
    """A page's text with its tables made anew. Raises KeyError for a marker that names no table."""
    return MARKED.sub(lambda found: f"<!-- table: {found[1]} -->\n\n{makers[found[1]]()}\n\n<!-- end -->", text)


def main(given: Sequence[str]) -> int:
    trainings, check, differing = Trainings(), "--check" in given, list[str]()
    makers = tables(trainings)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = made(text, makers)
        if new != text:
            differing.append(page.name)
            if not check:
                page.write_text(new, encoding="utf-8")
    for figure in suite_figures.figures(trainings.on_folds(first=True)).values():
        if not figure.is_current(DOCS):
            differing.append(figure.file)
            if not check:
                figure.write(DOCS)
    print(f"{'differ' if check else 'written'}: {', '.join(differing)}" if differing else "nothing to do")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
