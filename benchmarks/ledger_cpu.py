"""What does keeping an evaluation cost? A whole search with its ledger, whose evaluations take no time.

    python benchmarks/ledger_cpu.py [--population 50] [--generations 20] [--blocks 22] [--folder DIR]

Proposals and a SQLite file as `slicemamba search` has them. Optuna's own way of adding trials, ours one by one, and
ours as the command does it, with a journal and several evaluations in a transaction. One after the other, in one run.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.search import Architecture, Evaluation, Fingerprint, SearchSettings, open_ledger, run_search
from nnunetv2_slicemamba.search.ledger.journal import Journal, Journaled
from nnunetv2_slicemamba.search.workers.base import InTurn, Workers

CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))


def evaluate(architecture: Architecture) -> Evaluation:
    """Any fitness, the same for the same architecture."""
    number = int.from_bytes(hashlib.sha256(bytes(architecture)).digest()[:4], "big") / 2**32
    return Evaluation(number, {"dice_per_class": [number]})


def measure(workers: Workers, settings: SearchSettings, n_blocks: int, folder: Path) -> tuple[float, float, float]:
    """Seconds and seconds of CPU of a whole search, and its best fitness."""
    content = Fingerprint("Benchmark", "none", "paper", "2d", 0, "0" * 64, "0" * 64, n_blocks, CANDIDATES, settings)
    with open_ledger(folder / "study.db", content) as ledger:
        began, began_cpu = time.perf_counter(), time.process_time()
        result = run_search(workers, settings, ledger, progress=False)
        return time.perf_counter() - began, time.process_time() - began_cpu, result.best.fitness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=22)
    parser.add_argument("--folder", type=Path, default=None, help="where the ledgers are made and deleted again")
    arguments = parser.parse_args()
    settings = SearchSettings(arguments.population, arguments.generations)
    one_by_one: Callable[[Path], Workers] = lambda folder: InTurn(evaluate)  # noqa: E731
    ways: dict[str, tuple[bool, Callable[[Path], Workers]]] = {
        "Optuna's add_trial": (False, one_by_one),
        "a statement a table": (True, one_by_one),
        "the same, several together": (True, lambda folder: Journaled(InTurn(evaluate), Journal(folder, "benchmark"))),
    }
    table = Table("how", "s", "s of CPU", "ms each", "times less", title=f"{settings.evaluations} evaluations")
    first, best = None, set()
    for name, (ours, workers) in ways.items():
        known = mock.patch("nnunetv2_slicemamba.search.ledger.bulk_trials.looks_known", return_value=ours)
        with known, tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            seconds, cpu, fitness = measure(workers(Path(folder)), settings, arguments.blocks, Path(folder))
        best.add(fitness)
        first = first or seconds
        each = 1000 * seconds / settings.evaluations
        table.add_row(name, f"{seconds:.2f}", f"{cpu:.2f}", f"{each:.2f}", f"{first / seconds:.1f}")
    Console(width=100).print(table)
    if len(best) > 1:
        raise SystemExit(f"the searches ended differently: {best}")


if __name__ == "__main__":
    main()
