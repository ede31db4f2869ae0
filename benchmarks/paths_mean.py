"""Is the mean prediction of several slicings of one training better than that of one?

    python benchmarks/paths_mean.py -d 17 -c 2d -f 0 -p PLANS -tr SliceMambaSupernetTrainer_20epochs
        [--paths 8] [--seed 0] [--device cuda] [--json FILE]

Takes a trained supernet, or a final network that was trained with changing slicings (accuracy.py's
SliceMambaTrainerPaths), and predicts the fold's validation cases as nnU-Net does, mirrored: with the path that the
checkpoint names and with `--paths` others drawn at random. No validation case had a say in which. Logits are averaged
as nnU-Net averages those of folds; the table shows the Dice of each path alone and of the first 2, 4, 8... together.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from nnunetv2_slicemamba.common.commands import environment
from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.search.evaluation.counting import Classes, count, segmentation_of
from nnunetv2_slicemamba.search.evaluation.supernet_fold import TILE_STEP_SIZE
from nnunetv2_slicemamba.search.fitness import mean_foreground_dice
from nnunetv2_slicemamba.slicing.candidates import Architecture
from nnunetv2_slicemamba.trainers.offline import quiet

HERE = Path(__file__).resolve().parent


def load(selection: Selection, trainer: str, device: torch.device) -> nnUNetPredictor:
    """nnU-Net's predictor, with mirroring, of a fold's finished training."""
    with quiet():
        predictor = nnUNetPredictor(TILE_STEP_SIZE, use_mirroring=True, device=device, allow_tqdm=False)
        folder = selection.fold_folder(trainer)
        predictor.initialize_from_trained_model_folder(str(folder.parent), (selection.fold,), "checkpoint_final.pth")
    predictor.network.to(device).eval()
    return predictor


def setter(network: Any, candidates: Sequence[Sequence[int]]) -> Callable[[Architecture | None], None]:
    """What makes the network use a path; None: the checkpoint's."""
    if isinstance(network, SliceMambaSupernet):
        own_path = network.get_architecture()
        return lambda path: network.set_architecture(own_path if path is None else path)
    own = network.get_slicing()
    return lambda path: network.set_slicing(own if path is None else [candidates[i] for i in path])


def read_cases(selection: Selection) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(channels, *spatial) and (*spatial) labels of each of the fold's validation cases, preprocessed."""
    base = selection.preprocessed_folder
    names = json.loads((base / "splits_final.json").read_text())[int(selection.fold)]["val"]
    folder = str(base / selection.configuration_manager.data_identifier)
    dataset = infer_dataset_class(folder)(folder, names)
    for name in names:
        data, truth, _, _ = dataset.load_case(name)
        yield torch.from_numpy(np.asarray(data[:], np.float32)), torch.from_numpy(np.asarray(truth[:])[0])


def together(n_paths: int) -> list[int]:
    """How many paths are averaged: powers of two, and all."""
    powers = [2**k for k in range(n_paths.bit_length()) if 2**k <= n_paths]
    return sorted({*powers, n_paths})


def evaluate(
    predictor: nnUNetPredictor,
    cases: Sequence[tuple[torch.Tensor, torch.Tensor]],
    classes: Classes,
    set_path: Callable[[Architecture | None], None],
    paths: Sequence[Architecture],
    console: Console,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Counts (see fitness.dice_per_case), each with a first axis: of the checkpoint's path, of every path alone, and
    of the means that `together` lists."""
    own, alone, means = [], [], []

    def counted(logits: torch.Tensor, truth: torch.Tensor) -> NDArray[np.int64]:
        return count(segmentation_of(logits[None], classes), truth[None], classes)[0].cpu().numpy()

    for data, truth in track(cases, "cases", console=console):
        set_path(None)
        own.append(counted(predictor.predict_sliding_window_return_logits(data).cpu().float(), truth))
        total: torch.Tensor | None = None
        of_case, of_means = [], []
        for number, path in enumerate(paths, start=1):
            set_path(path)
            logits = predictor.predict_sliding_window_return_logits(data).cpu().float()
            of_case.append(counted(logits, truth))
            total = logits if total is None else total + logits
            if number in together(len(paths)):
                of_means.append(counted(total, truth))
        alone.append(of_case)
        means.append(of_means)
    return np.stack(own)[None], np.stack(alone, axis=1), np.stack(means, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True, help="dataset, by ID or name")
    parser.add_argument("-c", required=True, help="configuration")
    parser.add_argument("-f", default="0", help="fold, not all")
    parser.add_argument("-p", default="nnUNetSliceMambaPlans", help="plans")
    parser.add_argument("-tr", default="SliceMambaSupernetTrainer", help="the trainer")
    parser.add_argument("--paths", type=int, default=8, help="drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    # more slicings take turns than graphs are kept of: each would be recorded in vain
    os.environ["SLICEMAMBA_GRAPHS"] = "0"
    os.environ["nnUNet_extTrainer"] = os.pathsep.join(
        [environment()["nnUNet_extTrainer"], str(HERE / "accuracy_ext")],
    )
    console = Console(width=120)
    selection = select(given.d, given.c, given.f, given.p)
    predictor = load(selection, given.tr, torch.device(given.device))
    classes = Classes.of(predictor.plans_manager.get_label_manager(predictor.dataset_json))
    generator = np.random.default_rng(given.seed)
    drawn = generator.integers(len(selection.candidates), size=(given.paths, selection.n_blocks)).tolist()
    paths = [tuple(path) for path in drawn]
    cases = list(read_cases(selection))
    began = time.perf_counter()
    set_path = setter(predictor.network, selection.candidates)
    counts = evaluate(predictor, cases, classes, set_path, paths, console)
    (own,), alone, means = ([mean_foreground_dice(one).fitness for one in many] for many in counts)
    table = Table(
        "prediction with", "Dice", title=f"{selection.dataset}, fold {given.f}, {given.tr}, {len(cases)} cases"
    )
    table.add_row("the checkpoint's path", f"{own:.4f}")
    spread = f" ± {statistics.stdev(alone):.4f}" if len(alone) > 1 else ""
    table.add_row(f"one of {len(alone)} paths drawn at random, mean", f"{statistics.fmean(alone):.4f}{spread}")
    for number, dice in zip(together(len(paths)), means, strict=True):
        if number > 1:
            table.add_row(f"the mean of the first {number}", f"{dice:.4f}")
    console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s", highlight=False)
    if given.json:
        found = {"trainer": given.tr, "seed": given.seed, "own": own, "alone": alone, "paths": paths}
        found["means"] = dict(zip(map(str, together(len(paths))), means, strict=True))
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
