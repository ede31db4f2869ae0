"""What is a training that `accuracy.py` runs: which data, plans and trainer, and what its name means."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

N_FOLDS = 5  # of nnU-Net's own split
SEARCH_SECONDS = 100.0  # that a supernet with its search needs beyond another training


@dataclass(frozen=True)
class Dataset:
    """number: nnU-Net's ID. fixed: what `slicemamba slicing --set` gets for the slicing without a search.
    seconds: what a run needs on one H100 that it shares with another, start and validation included. work: how much
    augmenting its batches takes, beside other datasets'."""

    key: str
    number: int
    name: str
    configuration: str
    fixed: str
    seconds: float
    work: float

    @property
    def folder(self) -> str:
        return f"Dataset{self.number:03d}_{self.name}"


DATASETS = {
    d.key: d
    for d in (
        Dataset("isic2017", 17, "ISIC2017", "2d", "2x4", 260, 2.0),
        Dataset("hippocampus", 4, "Hippocampus", "3d_fullres", "2x4x2", 140, 1.0),
    )
}


@dataclass(frozen=True)
class Planner:
    """command: what writes the plans of a dataset, without -d and -c. plans_name: their name."""

    command: tuple[str, ...]
    plans_name: str


def _ours(size: str) -> Planner:
    name = "" if size == "L" else size
    return Planner(("slicemamba", "plan", "--size", size), f"nnUNetSliceMamba{name}Plans")


def _hybrid(size: str) -> Planner:
    name = f"nnUNetSliceMambaHybrid{size}Plans"
    return Planner(("slicemamba", "plan", "--hybrid", "--size", size, "-overwrite_plans_name", name), name)


STOCK = "nnU-Net"
PLANNERS = {
    STOCK: Planner(("nnUNetv2_plan_experiment",), "nnUNetPlans"),
    "ResEncM": Planner(("nnUNetv2_plan_experiment", "-pl", "nnUNetPlannerResEncM"), "nnUNetResEncUNetMPlans"),
    **{size: _ours(size) for size in "SML"},
    **{f"Hybrid{size}": _hybrid(size) for size in "SML"},
}


@dataclass(frozen=True)
class Candidate:
    """One way to train, on any dataset.

    prediction: what is expected and why, written before it runs. planner: key of PLANNERS, or a planner of its own.
    slicing: None for networks without one, "fixed", or what `slicemamba slicing --set` takes. supernet: the candidate
    whose supernet chooses the slicing instead, and has the weights that an inheriting trainer starts from. changes: of
    the plans' arch_kwargs. A supernet is searched, with the default settings, when it is trained.
    """

    name: str
    prediction: str
    planner: str | Planner = "M"
    trainer: str = "SliceMambaTrainer_20epochs"
    slicing: str | None = "fixed"
    supernet: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.prediction.strip():
            raise ValueError(f"the candidate {self.name!r} has no prediction; say what is expected of it and why")
        if not all(part.isalnum() for part in self.name.replace("-", "_").split("_")):
            raise ValueError(f"the candidate's name {self.name!r} must be letters and digits with single '-' or '_'")
        if re.match(r"fold\d-", self.name):
            raise ValueError(f"the candidate's name {self.name!r} begins as a run's of another fold does; rename it")

    @property
    def is_supernet(self) -> bool:
        return "SupernetTrainer" in self.trainer

    @property
    def inherits(self) -> bool:
        """Whether it needs the supernet's weights, not its choice alone."""
        return "InheritTrainer" in self.trainer

    @property
    def plans(self) -> Planner:
        if isinstance(self.planner, Planner):
            return self.planner
        if self.planner not in PLANNERS:
            raise ValueError(f"there is no planner {self.planner!r}; give one of {', '.join(PLANNERS)}, or a command")
        return PLANNERS[self.planner]


@dataclass(frozen=True)
class Run:
    """A candidate on a fold of a dataset. repeat: from 2 on, another training with the same settings, to see noise."""

    dataset: Dataset
    candidate: Candidate
    repeat: int = 1
    fold: int = 0

    @property
    def name(self) -> str:
        fold = f"fold{self.fold}-" if self.fold else ""
        again = f".{self.repeat}" if self.repeat > 1 else ""
        return f"{self.dataset.key}-{fold}{self.candidate.name}{again}"

    @property
    def plans_name(self) -> str:
        """Of the plans that it trains with: a changed copy's if the network is changed."""
        name = self.candidate.plans.plans_name
        if not self.candidate.changes:
            return name
        return f"{name}_{self.candidate.name.replace('-', '_')}"

    @property
    def slicing(self) -> str | None:
        """For `slicemamba slicing --set`; None where a supernet chooses it, or there is none."""
        return self.dataset.fixed if self.candidate.slicing == "fixed" else self.candidate.slicing

    @property
    def seconds(self) -> float:
        return self.dataset.seconds + SEARCH_SECONDS * self.candidate.is_supernet

    def supernet(self, candidates: Mapping[str, Candidate]) -> Run | None:
        """The run whose supernet chooses the slicing. ValueError if there is no such candidate, or it is no supernet
        of the same plans."""
        name = self.candidate.supernet
        if name is None:
            return None
        found = candidates.get(name)
        network = (self.candidate.plans, self.candidate.changes)
        if found is None or not found.is_supernet or (found.plans, found.changes) != network:
            raise ValueError(
                f"{self.candidate.name} names the supernet {name!r}; give a candidate with the trainer "
                "SliceMambaSupernetTrainer... and the same planner and changes"
            )
        return Run(self.dataset, found, fold=self.fold)


def read_candidates(file: Path) -> list[Candidate]:
    """Further candidates: a JSON list of objects with Candidate's fields; "planner" may be an object of Planner's.

    ValueError for what is no candidate, one without prediction included.
    """
    found = []
    for entry in json.loads(file.read_text(encoding="utf-8")):
        planner = entry.get("planner", "M")
        if isinstance(planner, dict):
            entry = {**entry, "planner": Planner(tuple(planner["command"]), planner["plans_name"])}
        try:
            candidate = Candidate(**entry)
        except TypeError as error:
            raise ValueError(f"{file}: {entry} is no candidate ({error}); it needs name and prediction") from error
        candidate.plans  # noqa: B018 - refuses a planner that does not exist
        found.append(candidate)
    return found


def find_run(name: str, candidates: Mapping[str, Candidate]) -> Run:
    """The run of a name such as isic2017-m, of fold 1 isic2017-fold1-m, or for another training of it isic2017-m.2."""
    found = re.fullmatch(r"([^-.]+)-(?:fold(\d)-)?([^.]+)(?:\.(\d+))?", name)
    key, fold, candidate, repeat = found.groups() if found else ("", None, "", None)
    if key not in DATASETS or candidate not in candidates or int(fold or 0) >= N_FOLDS:
        raise ValueError(
            f"there is no run {name!r}: names are DATASET-CANDIDATE, DATASET-fold1-CANDIDATE for fold 1 (to "
            f"{N_FOLDS - 1}), with .2 for a second training; datasets {', '.join(DATASETS)}; candidates "
            f"{', '.join(candidates)}"
        )
    return Run(DATASETS[key], candidates[candidate], int(repeat or 1), int(fold or 0))
