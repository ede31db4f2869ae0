"""Speed of the search on a GPU: architectures a second, and the seconds of a whole search with its ledger.

    python benchmarks/search_gpu.py --images ISIC2017 [--processes 2] [--device cuda] [--json FILE] [--csv FOLDER]

Without cache, with it, and one by one with nnU-Net's predictor, all in one run, on real images with the paper's network
and random weights (what they are does not matter for time). The whole search runs as `slicemamba search` does: its
evolution, its ledger in a SQLite file. --images: a folder with images and masks beside each other as ISIC 2017's are
(NAME.jpg below a folder ...Data, NAME_segmentation.png below a folder ...GroundTruth). To try it on a CPU:
--device cpu --width 16 --cases 4 --population 6 --generations 2 --without-cache 6 --one-by-one 2

--processes 2 first runs the whole search shared by two processes, with a GPU each, as torchrun starts them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import results
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import add_csv, by_torchrun, device_name

from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.search import (
    Architecture,
    Fingerprint,
    Ledger,
    Record,
    SearchSettings,
    open_ledger,
    run_search,
)
from nnunetv2_slicemamba.search.evaluation.counting import Classes
from nnunetv2_slicemamba.search.evaluation.one_by_one import OneByOne
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathEvaluation
from nnunetv2_slicemamba.search.evaluation.supernet_fold import TILE_STEP_SIZE
from nnunetv2_slicemamba.search.evaluation.windows import make_case
from nnunetv2_slicemamba.search.fitness import mean_foreground_dice
from nnunetv2_slicemamba.search.ledger.evaluation_log import LOG_FOLDER
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport
from nnunetv2_slicemamba.search.records import Done, Evaluation, tasks_of
from nnunetv2_slicemamba.search.workers.base import BatchedWorkers, Workers, no_more
from nnunetv2_slicemamba.search.workers.meeting import meet
from nnunetv2_slicemamba.search.workers.processes import Process
from nnunetv2_slicemamba.search.workers.shared import SharedWorkers, help_out
from nnunetv2_slicemamba.trainers.offline import ValidationCase, quiet

PATCH = (256, 256)
LABELS = LabelManager({"background": 0, "lesion": 1}, None)


def paper_supernet(width: int) -> SliceMambaSupernet:
    """The paper's network as a supernet; `out_proj` is enlarged so that random paths differ in their Dice."""
    torch.manual_seed(0)
    network = SliceMambaSupernet(
        input_channels=3,
        num_classes=2,
        n_stages=4,
        features_per_stage=[width * 2**i for i in range(4)],
        strides=[[4, 4], [2, 2], [2, 2], [2, 2]],
        n_blocks_per_stage=[2, 2, 9, 2],
        n_blocks_per_stage_decoder=[2, 2, 2, 1],
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.mul_(10)
    return network.eval()


def read_cases(folder: Path, n: int) -> list[ValidationCase]:
    """The first n images, normalised as nnU-Net does colour images: every channel to mean 0 and SD 1."""
    images = sorted(folder.rglob("*Data/*.jpg"))[:n]
    if len(images) < n:
        raise SystemExit(f"{folder} has {len(images)} images (*Data/*.jpg), --cases asks for {n}")
    cases = []
    for file in images:
        (mask,) = folder.rglob(f"*GroundTruth/{file.stem}_segmentation.png")
        pixels = np.asarray(Image.open(file).convert("RGB").resize(PATCH[::-1]), np.float32)
        channels = pixels.transpose(2, 0, 1)[:, None]
        mean, sd = (f(channels, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
        truth = np.asarray(Image.open(mask).convert("L").resize(PATCH[::-1], Image.Resampling.NEAREST)) > 127
        data = torch.from_numpy((channels - mean) / np.maximum(sd, 1e-8))
        cases.append(ValidationCase(file.stem, data, truth.astype(np.int16)[None, None]))
    return cases


class Evaluator:
    """The work of SupernetFold after it has read its files."""

    def __init__(self, network: SliceMambaSupernet, cases: list[ValidationCase], device: torch.device, cached: bool):
        made = [make_case(case.data, case.truth, PATCH, TILE_STEP_SIZE) for case in cases]
        self.paths = PathEvaluation(network, made, Classes.of(LABELS), PATCH, device, None if cached else 0)

    def evaluate(self, tasks, go_on=lambda: True, more=no_more):
        if self.paths.device.index is not None:
            torch.cuda.set_device(self.paths.device)  # a thread's own
        for counted in self.paths.count_paths(tasks, go_on, more):
            dice = mean_foreground_dice(counted.counts)
            yield Done(counted.task, Evaluation(dice.fitness, dice.details()), counted.seconds)


def whole_search(
    workers_of: Callable[[Ledger], contextlib.AbstractContextManager[Workers]],
    settings: SearchSettings,
    n_blocks: int,
    folder: Path,
) -> tuple[list[Record], float]:
    """All records, and the seconds of the whole search with its ledger, while its study is written beside it."""
    candidates = ((2, 2), (2, 4), (4, 2), (4, 4))
    fingerprint = Fingerprint(
        "Benchmark", "random weights", "paper", "2d", 0, "0" * 64, "0" * 64, n_blocks, candidates, settings
    )
    with open_ledger(folder / "study.db", fingerprint) as ledger, StudyExport(ledger), workers_of(ledger) as workers:
        started = time.perf_counter()
        result = run_search(workers, settings, ledger)
        return list(result.records), time.perf_counter() - started


def timed(evaluator: Evaluator, generations: list[list[Architecture]]) -> tuple[dict[Architecture, float], float]:
    """Fitness of the architectures, evaluated generation by generation, and seconds."""
    fitness: dict[Architecture, float] = {}
    started = time.perf_counter()
    for architectures in generations:
        for done in evaluator.evaluate(tasks_of(architectures)):
            fitness[done.task.architecture] = done.evaluation.fitness
    return fitness, time.perf_counter() - started


def by_processes(arguments: argparse.Namespace) -> dict[str, float]:
    """The content that `share` writes, of this program started --processes times by torchrun."""
    names = ("images", "device", "cases", "width", "population", "generations")
    return by_torchrun(__file__, arguments.processes, {name: getattr(arguments, name) for name in names})


def share(evaluator: Evaluator, process: Process, settings: SearchSettings, n_blocks: int, file: Path) -> None:
    """The whole search by several processes of this machine; the first one writes what it took."""
    folder = Path(tempfile.gettempdir()) / f"search_gpu_{os.environ['MASTER_PORT']}"
    store = meet(process, folder / LOG_FOLDER)
    store.add("warm", 1)
    while store.add("warm", 0) < process.world:
        time.sleep(0.01)
    if not process.is_writer:
        help_out(store, process.rank, lambda: evaluator, folder / LOG_FOLDER)
        return
    records, seconds = whole_search(
        lambda ledger: SharedWorkers(store, process.world, evaluator, ledger.log), settings, n_blocks, folder
    )
    shutil.rmtree(folder, ignore_errors=True)
    content = {
        "architectures": len(records),
        "seconds": seconds,
        "best_fitness": max(record.fitness for record in records),
        "evaluating": sum(record.seconds for record in records) / process.world,
    }
    file.write_text(json.dumps(content))


def gib(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--width", type=int, default=96, help="channels of the first stage; the paper's are 96")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--without-cache", type=int, default=250, help="architectures, of whole generations")
    parser.add_argument("--one-by-one", type=int, default=6, help="architectures")
    parser.add_argument("--processes", type=int, default=1, help="that share the whole search, with a GPU each")
    parser.add_argument("--json", type=Path, default=None)
    add_csv(parser)
    arguments = parser.parse_args()
    process = Process.from_environment()
    if process.world > 1 and arguments.json is None:
        parser.error("several processes write their times into --json; --processes starts them with one")
    shared = by_processes(arguments) if arguments.processes > 1 else None
    device = process.device(torch.device(arguments.device))
    console = Console(width=120)
    settings = SearchSettings(arguments.population, arguments.generations)
    cases = read_cases(arguments.images, arguments.cases)
    network = paper_supernet(arguments.width).to(device)
    warm_up = [(0,) * network.n_blocks, tuple(i % 4 for i in range(network.n_blocks))]

    def peak() -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None

    cached = Evaluator(network, cases, device, cached=True)
    timed(cached, [warm_up])
    cached.paths.cache.clear()
    cached.paths.blocks_computed = 0
    if process.world > 1:
        share(cached, process, settings, network.n_blocks, arguments.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        alone = contextlib.nullcontext(BatchedWorkers(cached))
        records, seconds = whole_search(lambda ledger: alone, settings, network.n_blocks, Path(folder))
    evaluating = sum(record.seconds for record in records)
    batches = len(cached.paths._batches)
    computed = cached.paths.blocks_computed / (len(records) * network.n_blocks * batches)
    used, peak_cached = cached.paths.cache.used, peak()
    cached.paths.cache.clear()

    by_generation = [[r.architecture for r in records if r.generation == g] for g in range(settings.generations + 1)]
    n_sampled = max(1, min(len(by_generation), arguments.without_cache // settings.population))
    sampled = [by_generation[i] for i in np.linspace(0, len(by_generation) - 1, n_sampled).round().astype(int)]
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    plain = Evaluator(network, cases, device, cached=False)
    timed(plain, [warm_up])
    fitness, plain_seconds = timed(plain, sampled)
    peak_plain = peak()
    fitness_of = {record.architecture: record.fitness for record in records}
    identical = all(fitness_of[a] == f for a, f in fitness.items())

    with quiet():
        predictor = nnUNetPredictor(tile_step_size=TILE_STEP_SIZE, use_mirroring=False, device=device, allow_tqdm=False)
    predictor.network, predictor.label_manager = network, LABELS
    predictor.configuration_manager = SimpleNamespace(patch_size=PATCH)
    nnunet = OneByOne(network, predictor, cases, LABELS)
    nnunet(warm_up[0])
    chosen = list(fitness_of)[:: max(1, len(fitness_of) // arguments.one_by_one)][: arguments.one_by_one]
    started = time.perf_counter()
    theirs = [nnunet(architecture).fitness for architecture in chosen]
    nnunet_seconds = time.perf_counter() - started
    apart = max(abs(fitness_of[a] - f) for a, f in zip(chosen, theirs, strict=True))

    rates = {
        "one by one, nnU-Net's predictor": len(chosen) / nnunet_seconds,
        "together, without cache": len(fitness) / plain_seconds,
        "together, with cache": len(records) / evaluating,
        "whole search, ledger included": len(records) / seconds,
    }
    counts = [len(chosen), len(fitness), len(records), len(records)]
    if shared is not None:
        rates[f"the same by {arguments.processes} processes"] = shared["architectures"] / shared["seconds"]
        counts.append(int(shared["architectures"]))
    slowest = rates["one by one, nnU-Net's predictor"]
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    title = f"{name}, PyTorch {torch.__version__}, {len(cases)} cases of {PATCH[0]}x{PATCH[1]}, width {arguments.width}"
    table = Table("evaluation", "architectures", "a second", "times", f"{settings.evaluations} take", title=title)
    for (label, rate), n in zip(rates.items(), counts, strict=True):
        table.add_row(label, str(n), f"{rate:.3g}", f"{rate / slowest:.1f}", f"{settings.evaluations / rate:.1f} s")
    console.print(table)
    said = [
        f"The whole search of {len(records)} architectures took {seconds:.1f} s; "
        f"best fitness {max(fitness_of.values())!r}.",
        f"With the cache {computed:.0%} of the blocks were computed; it held {used / 2**30:.2f} GiB at the end.",
        f"Peak of the GPU's memory with it {gib(peak_cached)}, without it {gib(peak_plain)}.",
        f"Dice with and without it identical: {identical}; distinct: {len(set(fitness_of.values()))}.",
        f"Largest difference of the Dice to nnU-Net's predictor: {apart:.1e}.",
    ]
    if shared is not None:
        took = f"{arguments.processes} processes took {shared['seconds']:.1f} s"
        times = f"{seconds / shared['seconds']:.2f} times as fast"
        said.append(f"{took}, {times}; best fitness {shared['best_fitness']!r}.")
        each = f"{shared['evaluating']:.1f} s of that each on average, one process {evaluating:.1f} s"
        said.append(f"They evaluated for {each}.")
    for line in said:
        console.print(line, highlight=False)
    if arguments.json:
        content = {
            "device": name, "torch": torch.__version__, "cases": len(cases), "width": arguments.width,
            "architectures_a_second": rates, "architectures": dict(zip(rates, counts, strict=True)),
            "search_seconds": seconds, "search_architectures": len(records), "share_of_blocks_computed": computed,
            "cache_gib": used / 2**30, "peak_gib": {"with cache": peak_cached, "without": peak_plain},
            "identical_with_and_without_cache": identical, "largest_difference_to_nnunet": apart,
            "processes": arguments.processes, "shared": shared,
        }  # fmt: skip
        arguments.json.write_text(json.dumps(content, indent=1))
    if arguments.csv is not None:
        size = f"{len(cases)} cases of {PATCH[0]}x{PATCH[1]}, width {arguments.width}"
        whole = ("whole search, ledger included", size, f"{len(records):,} architectures")
        alone = [(label, size, "architectures", rate, "1/s") for label, rate in list(rates.items())[:4]]
        results.write_timings(arguments.csv, "search_gpu", device_name(device), [*alone, (*whole, seconds, "s")])
        if shared is not None:
            devices = f"{arguments.processes} x {device_name(device)}"
            rate = (*whole[:2], "architectures", shared["architectures"] / shared["seconds"], "1/s")
            results.write_timings(arguments.csv, "search_gpu", devices, [rate, (*whole, shared["seconds"], "s")])
    if not identical:
        raise SystemExit("the cache changed a Dice")


if __name__ == "__main__":
    main()
