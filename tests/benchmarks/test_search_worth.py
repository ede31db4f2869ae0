"""Tests of the benchmark of a search's worth on other cases: it is right where luck, and where quality, decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import results
import search_worth
from rich.console import Console
from search_worth import Counts, Outcome

from nnunetv2_slicemamba.search import Architecture, Fingerprint, SearchSettings
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathCounts
from nnunetv2_slicemamba.search.records import Task

CASES, BLOCKS, VOXELS = 16, 8, 100_000
CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))
SETTINGS = SearchSettings(population=12, generations=3, parents=4)
FINGERPRINT = Fingerprint("Test", "made up", "plans", "2d", 0, "0" * 64, "0" * 64, BLOCKS, CANDIDATES, SETTINGS)


class Paths:
    """Paths whose Dice is 0.8, plus 0.01 of quality for every block with candidate 3, plus luck with every case."""

    def __init__(self, quality: float, luck: float) -> None:
        self.quality, self.luck, self.asked = quality, luck, 0

    def count_paths(self, tasks: Sequence[Task], go_on: Callable[[], bool] = lambda: True) -> Iterator[PathCounts]:
        for task in sorted(tasks, key=lambda task: task.architecture):
            self.asked += 1
            path = task.architecture
            noise = np.random.default_rng(path).normal(size=CASES) * self.luck
            dice = 0.8 + 0.01 * self.quality * path.count(3) + noise
            # of as many voxels in truth and prediction, this share is common to both
            common = (dice * VOXELS).astype(np.int64)
            counts = np.stack([common, VOXELS - common, VOXELS - common], axis=-1)[:, None]
            yield PathCounts(task, counts, 0.01)


def studied(paths: Paths, file: Path | None = None, of: str = "supernet") -> tuple[list[Outcome], list[Architecture]]:
    counts = Counts(lambda: paths, file, of)
    return search_worth.study(counts, CASES, 3, FINGERPRINT, Console(quiet=True))


def mean_gain(outcomes: list[Outcome], what: str, where: str) -> float:
    return float(np.mean([outcome.gain(what, where) for outcome in outcomes]))


def test_quality_is_worth_as_much_on_other_cases() -> None:
    outcomes, first = studied(Paths(quality=1, luck=0))
    assert len(outcomes) == 6
    assert len(first) == SETTINGS.population
    for outcome in outcomes:
        assert outcome.paths == SETTINGS.evaluations
        for what in ("best_random", "chosen"):
            assert outcome.gain(what, "choosing") == pytest.approx(outcome.gain(what, "others"), abs=1e-3) != 0
        assert outcome.gain("chosen", "others") > outcome.gain("best_random", "others")
        assert outcome.agreement == pytest.approx(1)
    # the mean number of candidates 3 is known
    expected = 0.8 + 0.01 * np.mean([path.count(3) for path in first])
    assert outcomes[0].random_others == pytest.approx(expected, abs=1e-4)


def test_luck_is_worth_nothing_on_other_cases() -> None:
    outcomes, _ = studied(Paths(quality=0, luck=0.02))
    assert min(outcome.gain("chosen", "choosing") for outcome in outcomes) > 0.7
    assert mean_gain(outcomes, "chosen", "choosing") > mean_gain(outcomes, "best_random", "choosing")
    assert abs(mean_gain(outcomes, "chosen", "others")) < 0.6
    assert abs(np.mean([outcome.agreement for outcome in outcomes])) < 0.3


def test_a_study_goes_on_where_it_stopped_and_never_with_anothers_counts(tmp_path: Path) -> None:
    file, first = tmp_path / "counts.jsonl", Paths(quality=1, luck=0.01)
    whole = studied(first, file)
    text = file.read_text()
    assert text.count("counts") == first.asked
    again = Paths(quality=1, luck=0.01)
    assert studied(again, file) == whole
    assert again.asked == 0
    # the process ended while it wrote the tenth path
    lines = text.splitlines(keepends=True)
    file.write_text("".join(lines[:10]) + lines[10][:20])
    for missing in (first.asked - 9, 0):
        rest = Paths(quality=1, luck=0.01)
        assert studied(rest, file) == whole
        assert rest.asked == missing
    # another supernet's are not taken for these
    other = Paths(quality=1, luck=0.01)
    studied(other, file, of="another")
    assert other.asked == first.asked


class Trainer:
    """The split of a fold: do_split as the supernet's trainer has it with this holdout."""

    def __init__(self, training: str, validation: str, holdout: str | None) -> None:
        self.training, self.validation, self.holdout = training, validation, holdout

    def full_split(self) -> tuple[list[str], list[str]]:
        return list(self.training), list(self.validation)

    def do_split(self) -> tuple[list[str], list[str]]:
        if self.holdout is None:
            return self.full_split()
        return [case for case in self.training if case not in self.holdout], list(self.holdout)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (("cdef", "ba", None), "ab"),
        (("cdef", "ba", "fd"), "abdf"),
        # fold all
        (("abcd", "abcd", None), ""),
        (("abcd", "abcd", "cb"), "bc"),
    ],
)
def test_cases_that_the_supernet_was_trained_on_are_not_taken(split: tuple, expected: str) -> None:
    prepared: Any = SimpleNamespace(fold=SimpleNamespace(nnunet_trainer=Trainer(*split)))
    assert search_worth.unseen(prepared) == list(expected)


def test_the_halves_are_disjoint_and_differ_between_splits() -> None:
    seen = set()
    for split in range(4):
        one, other = search_worth.halves(CASES + 1, split)
        assert sorted(one + other) == list(range(CASES + 1))
        assert len(other) - len(one) == 1
        seen.add(tuple(one))
    assert len(seen) == 4


def test_the_table_tells_how_often_the_choice_beat_a_random_path(capsys: pytest.CaptureFixture[str]) -> None:
    def outcome(others: float) -> Outcome:
        return Outcome(0, 48, 0.80, 0.81, 0.82, 0.81, 0.83, others, 0.5)

    rows = search_worth.gains([outcome(0.83), outcome(0.80)])
    assert all(set(row) <= set(results.COLUMNS["searches"]) for row in rows)
    Console(width=120).print(search_worth.tabulate(rows, "title"))
    shown = capsys.readouterr().out
    assert "chosen by a search from 48" in shown
    # 0.83 - 0.80 here; +2 and -1 there
    assert [part in shown for part in ("+3.00 ± 0.00", "+0.50 ± 2.12", "1 of 2", "+2.00 ± 0.00")] == [True] * 4
