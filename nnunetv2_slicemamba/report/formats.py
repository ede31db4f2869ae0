"""Numbers as the page writes them: the same way everywhere, with their units, and a dash for what is undefined."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence

from nnunetv2_slicemamba.common.counts import nouns
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.search.figures.style import TIMES, breakable

from .results import Spread

UNDEFINED = "\N{EN DASH}"
THIN = "\N{NARROW NO-BREAK SPACE}"


def dice(value: float) -> str:
    """0.8633."""
    return UNDEFINED if math.isnan(value) else f"{value:.4f}"


def dice_spread(value: Spread) -> str:
    """0.8633 ± 0.0120, with a dash for the deviation of one fold."""
    return dice(value.mean) if math.isnan(value.mean) else f"{value.mean:.4f} ± {dice(value.deviation)}"


def percent(value: float) -> str:
    """86.33 (the column's head says %)."""
    return UNDEFINED if math.isnan(value) else f"{100 * value:.2f}"


def share(value: float) -> str:
    """32 %, for prose."""
    return UNDEFINED if math.isnan(value) else f"{100 * value:.0f}{THIN}%"


def count(value: float) -> str:
    """12,345."""
    return f"{value:,.0f}"


def parameters(value: int) -> str:
    """35.8 million, 512 thousand, 80."""
    if value < 1e4:
        return count(value)
    if value < 1e6:
        return f"{value / 1e3:.0f} thousand"
    return f"{value / 1e6:.1f} million"


def duration(seconds: float) -> str:
    """4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h, with a space before the unit that keeps it on the number's line."""
    if math.isnan(seconds):
        return UNDEFINED
    return re.sub(r"(?<=\d) ", THIN, duration_text(seconds))


def product(sizes: Sequence[float]) -> str:
    """256 × 256."""
    return f" {TIMES} ".join(f"{size:g}" for size in sizes) or UNDEFINED


def rounded(sizes: Sequence[float]) -> str:
    """1 × 0.79 × 0.79: lengths to three digits."""
    return f" {TIMES} ".join(f"{size:.3g}" for size in sizes) or UNDEFINED


def date(seconds: float) -> str:
    """2026-11-23, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d")


def plural(n: int, word: str) -> str:
    """1 case, 2 cases, 1 class, 2 classes, 2 epochs."""
    return f"{count(n)} {nouns(n, word)}"


def listed(names: Sequence[str]) -> str:
    """0, 1 and 2."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def trial(epochs: int | None) -> str:
    """1 epoch: a trial; empty for None, a real training."""
    return "" if epochs is None else f"{plural(epochs, 'epoch')}: a trial"


def folds_of(names: Sequence[str]) -> str:
    """fold 0; folds 0, 1 and 2."""
    return f"{'fold' if len(names) == 1 else 'folds'} {listed(names)}"


FILTERS = {
    "breakable": breakable,
    "dice": dice,
    "dice_spread": dice_spread,
    "percent": percent,
    "share": share,
    "count": count,
    "parameters": parameters,
    "duration": duration,
    "product": product,
    "rounded": rounded,
    "date": date,
    "plural": plural,
    "folds_of": folds_of,
    "trial": trial,
}
