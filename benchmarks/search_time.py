"""CPU time that a search itself takes for an evaluation, early and late in it, and to continue where it stopped.

    python benchmarks/search_time.py [--evaluations 20000] [--objective dice-latency]

The fitness costs nothing: what is left is proposing, ranking and keeping. The time per evaluation should not grow.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from nnunetv2_slicemamba.search import Evaluation, Fingerprint, SearchSettings, open_ledger, run_search
from nnunetv2_slicemamba.slicing.candidates import Architecture

BLOCKS, CANDIDATES = 22, ((2, 2), (2, 4), (4, 2), (4, 4))
MARKS = (1000, 2000, 5000, 10_000, 15_000, 20_000, 50_000)
WINDOW = 500  # evaluations before each mark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--objective", default="dice")
    options = parser.parse_args()
    base = SearchSettings()
    settings = dataclasses.replace(
        base, generations=max(options.evaluations // base.population - 1, 0), objective=options.objective
    )
    fingerprint = Fingerprint(
        "Dataset999_Benchmark", "SliceMambaSupernetTrainer", "plans", "2d", 0, "a" * 64, "b" * 64, BLOCKS, CANDIDATES,
        settings,
    )  # fmt: skip
    costly = settings.cost is not None
    times: list[float] = []

    def evaluate(architecture: Architecture) -> Evaluation:
        times.append(time.process_time())
        fitness = sum(gene * (block + 1) for block, gene in enumerate(architecture)) / 759
        return Evaluation(fitness, cost=1 + sum(architecture) if costly else None)

    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.db"
        with open_ledger(study, fingerprint) as ledger:
            run_search(evaluate, settings, ledger, progress=False)
        print(f"{'evaluation':>10}  ms each")
        for mark in MARKS:
            if WINDOW < mark <= len(times):
                print(f"{mark:>10}  {(times[mark - 1] - times[mark - 1 - WINDOW]) / WINDOW * 1e3:.3f}")
        for what in ("opened", "proposed again"):
            started = time.process_time()
            with open_ledger(study, fingerprint) as ledger:
                if what == "proposed again":
                    assert run_search(evaluate, settings, ledger, progress=False).evaluated_now == 0
            print(f"{what} in {time.process_time() - started:.1f} s")


if __name__ == "__main__":
    main()
