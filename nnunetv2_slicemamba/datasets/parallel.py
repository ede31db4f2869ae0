"""A function applied to many files at once, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_each(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int, title: str, console: Console | None
) -> list[Result]:
    """The results of `function` in the order of `items`; the first exception ends it and is raised.

    Threads suffice: decoding, encoding and compressing images and volumes leave Python's lock. console: None for no
    progress bar.
    """
    results: dict[int, Result] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task(title, total=len(items))
        pool = ThreadPoolExecutor(max(1, processes))
        try:
            futures = {pool.submit(function, item): index for index, item in enumerate(items)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress.advance(task)
        finally:
            # after an error or Ctrl-C what has not begun does not begin
            pool.shutdown(wait=True, cancel_futures=True)
    return [results[index] for index in range(len(items))]
