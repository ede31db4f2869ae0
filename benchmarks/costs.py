"""Costs of using trained models: size of the zip, and seconds per predicted case; with the table of all costs.

    python benchmarks/costs.py --work DIR --out DIR [--device cuda] [--cases 5]    # after accuracy.py
    python benchmarks/costs.py --table

DIR is the --work of accuracy.py: every finished training in it is measured. Prediction is nnU-Net's own, from image
file to segmentation, with one fold and mirroring; the first case is a warm-up. --cases 0 leaves the seconds out. A
zip's size is that of one fold's checkpoint without the optimiser's state; a training of a few steps is enough for it.
Rows go into timings.csv. Hours and memory of the table are those of runs.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import carry
import results
from suite_results import NETWORKS, SETS, candidate_of
from trainings import markdown
from workshop import CORES

from nnunetv2_slicemamba.common.commands import environment

MB = 1e6
ZIP, PREDICTION = "model zip", "prediction"
SHOWN = {**NETWORKS, "resenc-m": "nnU-Net's ResEncM"}


def model_zip(checkpoint: Path) -> float:
    """MB of a checkpoint in a model's zip."""
    return len(zlib.compress(carry.content_of(checkpoint, finished=True))) / MB


def seconds_per_case(checkpoint: Path, images: Sequence[Path], device: str) -> float:
    """Median over the images but the first."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device(device), perform_everything_on_device=device == "cuda")
    fold = checkpoint.parent.name.removeprefix("fold_")
    folds = (int(fold) if fold.isdigit() else fold,)
    predictor.initialize_from_trained_model_folder(str(checkpoint.parents[1]), folds, checkpoint.name)
    took = []
    for image in images:
        began = time.perf_counter()
        predictor.predict_from_files_sequential([[str(image)]], None)
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def measure(work: Path, out: Path, device: str, n_cases: int) -> None:
    """Measures every finished training of a workshop, one after another."""
    import torch

    on_gpu = device == "cuda"
    name = torch.cuda.get_device_name().removeprefix("NVIDIA ") if on_gpu else f"CPU, {CORES} cores"
    for one in carry.trainings(work, finished=True):
        (checkpoint,) = (file for file in one.files if file.name in carry.CHECKPOINTS)
        dataset, fold = checkpoint.parents[2].name, checkpoint.parent.name.replace("_", "")
        data, candidate = dataset[11:], one.run.split(f"-{fold}-")[1].rsplit("-", 2)[0]
        summary = json.loads((checkpoint.parent / carry.SUMMARY).read_text())["metric_per_case"]
        cases = [Path(case["prediction_file"]).name.partition(".") for case in summary[: n_cases + 1]]
        raw = work / "nnUNet_raw" / dataset / "imagesTr"
        images = [raw / f"{case}_0000.{ending}" for case, _, ending in cases]
        found = [(candidate, data, ZIP, model_zip(checkpoint), "MB")]
        if n_cases:
            found.append((candidate, data, PREDICTION, seconds_per_case(checkpoint, images, device), "s"))
        results.write_timings(out, "costs", name, found)
        print(f"{one.run} on {name}:", ", ".join(f"{what} {v:.3f} {unit}" for _, _, what, v, unit in found), flush=True)


def table(folder: Path = results.RESULTS) -> str:
    """A row per dataset, network and machine; of what was measured several times, the median."""
    head = ("data", "network", "hours of 1,000 epochs", "GPU, cores, trainings at a time", "peak GiB")
    head = (*head, "million parameters", "zip of a fold, MB", "s per case, GPU", "s per case, CPU")
    shown = {(data, candidate_of(name, data)): words for data in SETS for name, words in SHOWN.items()}
    groups: dict[tuple[str, ...], list[results.Row]] = {}
    for row in results.read("runs", folder):
        if (row["data"], row["candidate"]) in shown and row["state"] == "finished" and row["epoch_seconds"]:
            key = (row["data"], row["candidate"], row["gpu"], row["cores"], row["places"])
            groups.setdefault(key, []).append(row)
    timed = [row for row in results.read("timings", folder) if row["benchmark"] == "costs"]

    def median(rows: Sequence[results.Row], column: str, scale: float, digits: int) -> str:
        values = [float(row[column]) / scale for row in rows if row[column]]
        return f"{statistics.median(values):.{digits}f}" if values else "-"

    lines, order = [], list(shown)
    for (data, name, gpu, cores, places), rows in sorted(groups.items(), key=lambda item: order.index(item[0][:2])):
        own = [row for row in timed if (row["work"], row["size"]) == (name, data)]
        used = [row for row in own if row["figure"] == PREDICTION]
        on_cpu = [row for row in used if row["device"].startswith("CPU")]
        cells = (
            median(rows, "epoch_seconds", 3.6, 2),
            f"{gpu}, {cores}, {places}",
            median(rows, "peak_reserved_mib", 1024, 1),
            median(rows, "parameters", 1e6, 1),
            median([row for row in own if row["figure"] == ZIP], "value", 1, 1),
            median([row for row in used if row not in on_cpu], "value", 1, 3),
            median(on_cpu, "value", 1, 2),
        )
        lines.append((SETS[data], shown[data, name], *cells))
    known = [i for i in range(len(head)) if any(line[i] != "-" for line in lines)]  # columns
    return markdown([head[i] for i in known], [[line[i] for i in known] for line in lines])


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of accuracy.py's trainings")
    parser.add_argument("--out", type=Path, default=results.RESULTS, help="folder of timings.csv")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--cases", type=int, default=5, help="images to predict; 0: measure the zips alone")
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args(given)
    if not arguments.table:
        if arguments.work is None or not (arguments.work / "runs").is_dir():
            parser.error("--work must be the --work folder of accuracy.py, with trainings in it")
        folders = {name: str(arguments.work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        os.environ.update({**environment(), **folders})
        measure(arguments.work, arguments.out, arguments.device, arguments.cases)
    print(table(arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
