"""Tests of the table of costs, on made-up rows; what is measured is tested with accuracy.py's trainings."""

from __future__ import annotations

from pathlib import Path

import costs
import results
from suite_results import NETWORKS, candidate_of

OURS = candidate_of(next(iter(NETWORKS)), "acdc-60")


def test_costs_of_training_and_of_use_stand_in_a_row_for_each_machine(tmp_path: Path) -> None:
    def run(candidate: str, cores: int, seconds: float, repeat: int) -> dict[str, object]:
        row = {"id": f"{candidate}{cores}{repeat}", "data": "acdc-60", "candidate": candidate, "state": "finished"}
        return {**row, "epoch_seconds": seconds, "cores": cores, "gpu": "H200", "places": 1, "peak_reserved_mib": 2048}

    runs = [run("stock-gpu", 16, 36.0, 1), run(OURS, 16, 7.2, 1), run(OURS, 16, 3.6, 2)]
    unknown = {**run("other", 16, 1.0, 1)}
    results.write("runs", [*runs, run(OURS, 4, 72.0, 1), unknown], tmp_path)
    for device, seconds in (("H200", 0.25), ("CPU, 2 cores", 8.0)):
        figures = [(OURS, "acdc-60", costs.PREDICTION, seconds, "s")]
        results.write_timings(tmp_path, "costs", device, [*figures, (OURS, "acdc-60", costs.ZIP, 23.4, "MB")])
    lines = [line.strip("| ").split(" | ") for line in costs.table(tmp_path).splitlines()[2:]]
    ours = ["2.0", "23.4", "0.250", "8.00"]  # no parameters: nothing recorded, no column
    assert lines == [
        ["ACDC", "recommended", "1.50", "H200, 16, 1", *ours],
        ["ACDC", "recommended", "20.00", "H200, 4, 1", *ours],
        ["ACDC", "nnU-Net's default", "10.00", "H200, 16, 1", "2.0", "-", "-", "-"],
    ]
    assert costs.table(tmp_path / "nothing") == "Not run yet."
