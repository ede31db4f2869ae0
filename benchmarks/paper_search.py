"""The search of the published experiment: the package's evolution on a trained supernet of paper_training.py."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accuracy_training import Notes
from paper_training import Training

from nnunetv2_slicemamba.search import Fingerprint, SearchSettings, open_ledger, run_search, sha256_of_file
from nnunetv2_slicemamba.search.evaluation.counting import Classes
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathEvaluation
from nnunetv2_slicemamba.search.evaluation.windows import make_case
from nnunetv2_slicemamba.search.fitness import evaluation_of_counts
from nnunetv2_slicemamba.search.records import Done, Task
from nnunetv2_slicemamba.search.workers.base import BatchedWorkers, More, no_more


class Paths:
    """Evaluates a supernet's paths on images; see BatchEvaluator."""

    def __init__(self, counting: PathEvaluation) -> None:
        self.counting = counting

    def evaluate(self, tasks: Sequence[Task], go_on: Any, more: More = no_more) -> Iterator[Done]:
        for path in self.counting.count_paths(tasks, go_on, more):
            yield Done(path.task, evaluation_of_counts(path.counts), path.seconds)


def search(training: Training, notes: Notes, settings: SearchSettings | None = None) -> dict[str, Any] | None:
    """The slicing that the evolution chooses on the images that the supernet was not trained with.

    Its evaluations are kept in the training's folder, and a search that was stopped goes on. None if it has no time.
    """
    order, network = training.order, training.network.eval()
    settings = settings or SearchSettings(seed=order.repeat)
    images, patch = training.tests["search"], (order.pixels, order.pixels)
    cases = []
    for i in range(len(images.pixels)):
        data, mask = images.batch(torch.tensor([i]))
        cases.append(make_case(data[0], mask[0].cpu().numpy().astype("uint8"), patch, 0.5))
    # one head that says foreground above one half: a region, in nnU-Net's terms
    classes = Classes(foreground=((1,),), written=(1,))
    counting = PathEvaluation(network, cases, classes, patch, training.device)  # type: ignore[arg-type]
    fingerprint = Fingerprint(
        **{"dataset": order.data, "trainer": "paper.py", "plans_name": f"{order.size}, {order.pixels}"},
        **{"configuration": "2d", "fold": 0, "plans_sha256": ""},
        supernet_checkpoint_sha256=sha256_of_file(training.file),
        n_blocks=network.n_blocks,  # type: ignore[arg-type]
        candidates=network.candidates,  # type: ignore[arg-type]
        settings=settings,
    )
    notes.write(phase="search")
    budget = order.until - time.time()
    with open_ledger(Path(order.folder) / "search.db", fingerprint) as ledger:
        found = run_search(BatchedWorkers(Paths(counting)), settings, ledger, time_budget=min(budget, 1e9))
    if not found.complete:
        return None
    slicing = network.slicing_of(found.best.architecture)  # type: ignore[operator]
    return {"slicing": slicing, "fitness": found.best.fitness, "evaluations": len(found.records)}
