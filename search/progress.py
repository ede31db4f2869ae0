"""Progress of a search on the terminal: evaluations done, best fitness, the generation's mean."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.search.proposals.ranking import chosen_record
from nnunetv2_slicemamba.search.records import Record, mean_fitness
from nnunetv2_slicemamba.search.settings import SearchSettings

LINE_SECONDS = 60.0  # at least, between two lines of one generation in a log file


class SearchProgress:
    """A progress bar with the best fitness so far and the generation's mean; a context manager.

    Where the console is no terminal (a log file), one line per generation takes the bar's place, and one a minute.
    enabled: False shows nothing. n_stored: evaluations of an earlier run, which count as done but not for the time that
    remains.
    """

    def __init__(self, settings: SearchSettings, n_stored: int, console: Console, enabled: bool = True) -> None:
        self._settings = settings
        self._console = console
        self._lines = enabled and not console.is_terminal
        self._is_bar = enabled and console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}  mean {task.fields[mean]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_bar,
        )
        self._task = self._bar.add_task("", total=settings.evaluations, completed=n_stored, best="-", mean="-")
        self._best: Record | None = None
        self._generation = 0
        self._in_generation: list[Record] = []
        self._told = time.monotonic()

    def __enter__(self) -> SearchProgress:
        if self._is_bar:  # older versions of rich end a disabled bar with an empty line
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._is_bar:
            self._bar.stop()

    def generation_begins(self, generation: int) -> None:
        """generation: 0 is the random one."""
        self._generation = generation
        self._in_generation = []
        self._bar.update(self._task, description=f"generation {generation}/{self._settings.generations}")

    def add(self, record: Record, stored: bool) -> None:
        """Counts a record of this generation. stored: it is of an earlier run."""
        self._in_generation.append(record)
        so_far = [record] if self._best is None else [self._best, record]
        self._best = chosen_record(so_far, self._settings.cost)
        mean = mean_fitness(self._in_generation)
        self._bar.update(self._task, advance=0 if stored else 1, best=self._shown_best(), mean=_shown(mean))
        if self._lines and time.monotonic() - self._told >= LINE_SECONDS:
            self._tell(f"{count(len(self._in_generation), 'architecture')}, best so far {self._shown_best()}")

    def generation_ends(self) -> None:
        """All of the generation is evaluated."""
        if self._lines:
            mean = mean_fitness(self._in_generation)
            seconds = math.fsum(record.seconds for record in self._in_generation)
            self._tell(
                f"{count(len(self._in_generation), 'architecture')} in {duration_text(seconds)}, "
                f"best so far {self._shown_best()}, mean {_shown(mean)}"
            )

    def _tell(self, text: str) -> None:
        self._told = time.monotonic()
        generation = f"generation {self._generation}/{self._settings.generations}"
        self._console.print(f"{generation}: {text}", markup=False, highlight=False, soft_wrap=True)

    def _shown_best(self) -> str:
        return _shown(math.nan if self._best is None else self._best.fitness)


def _shown(fitness: float) -> str:
    return "-" if math.isnan(fitness) else f"{fitness:.4f}"
