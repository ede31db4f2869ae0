"""Trainings that accuracy.py runs: a candidate on a fold of a dataset, with the row of runs.csv that describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import results

# the columns of runs.csv that a name must not mean different things by
DEFINITION = ("configuration", "planner", "plans_changes", "trainer", "trainer_settings", "slicing")


@dataclass(frozen=True)
class Candidate:
    """A way to train, on any dataset.

    planner: the command that writes the plans, without dataset and configuration. plans: the name of these plans.
    arch: changes of their arch_kwargs. configuration: changes of the rest of the configuration, such as batch_size.
    settings: attributes of the trainer that are set before it builds its network, such as initial_lr.
    slicing: text for `slicemamba slicing --set`, or a candidate for every block, with spaces between; "fixed" is 2x4,
    2x4x2 in 3D; a number is the thickness of all axes; None for networks without one.
    columns: further cells of runs.csv, such as the fitness of the slicing.
    prediction: what is expected and why, written before the training.
    """

    name: str
    planner: Sequence[str]
    plans: str
    trainer: str
    arch: Mapping[str, Any] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    slicing: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    prediction: str = ""

    def __post_init__(self) -> None:
        # nnU-Net splits the names of its folders at two underscores
        if not all(part.isalnum() for part in self.name.replace("-", "_").split("_")):
            raise ValueError(f"the candidate's name {self.name!r} must be letters and digits with single '-' or '_'")


def _nnunet(name: str, plans: str, *planner: str) -> Candidate:
    return Candidate(name, ("nnUNetv2_plan_experiment", *planner), plans, "nnUNetTrainer")


def _ours(size: str, hybrid: bool) -> Candidate:
    plans = f"nnUNetSliceMamba{'Hybrid' * hybrid}{size}Plans"
    network = ("--hybrid",) if hybrid else ("--network", "paper")
    planner = ("slicemamba", "plan", *network, "--size", size, "-overwrite_plans_name", plans)
    return Candidate(size.lower() + "-hybrid" * hybrid, planner, plans, "SliceMambaTrainer", slicing="fixed")


CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        _nnunet("stock", "nnUNetPlans"),
        *(
            _nnunet(f"resenc-{size.lower()}", f"nnUNetResEncUNet{size}Plans", "-pl", f"nnUNetPlannerResEnc{size}")
            for size in ("M", "L", "XL")
        ),
        *(_ours(size, hybrid) for hybrid in (False, True) for size in "SML"),
    )
}


def read_candidates(file: Path) -> dict[str, Candidate]:
    """The built-in candidates and those of a JSON file: {NAME: {"base": NAME, FIELD: VALUE, ...}, ...}.

    A candidate has its base's fields where it gives none; without a base it gives planner, plans and trainer. Raises
    ValueError for a name that is taken and for fields that a candidate lacks.
    """
    found = dict(CANDIDATES)
    for name, entry in json.loads(file.read_text(encoding="utf-8")).items():
        if name in found:
            raise ValueError(f"{file}: there is a candidate {name!r} already; give this one another name")
        base = entry.pop("base", None)
        if base is not None and base not in found:
            raise ValueError(f"{file}: {name!r} has the unknown base {base!r}; there are {', '.join(found)}")
        inherited = {} if base is None else {**asdict(found[base]), "prediction": ""}
        try:
            found[name] = Candidate(**{**inherited, **entry, "name": name})
        except TypeError as error:
            raise ValueError(f"{file}: {name!r} is no candidate: {error}") from error
    return found


@dataclass(frozen=True)
class Data:
    """A dataset: its name, the folder it comes from, the configuration to train, and a batch size in place of the
    planned one."""

    name: str
    source: Path
    configuration: str
    batch: int | None = None


@dataclass(frozen=True)
class Run:
    """A training: a candidate on a fold for `epochs` of `iterations`; repeat: 1, or more for further ones alike."""

    data: Data
    candidate: Candidate
    fold: int = 0
    repeat: int = 1
    epochs: int = 20
    iterations: int = 250

    @property
    def id(self) -> str:
        of = f"{self.data.name}-fold{self.fold}-{self.candidate.name}"
        return f"{of}-{self.epochs}x{self.iterations}-{self.repeat}"

    @property
    def changes(self) -> dict[str, Any]:
        """Changes of the planned configuration, those of the network under "arch_kwargs"."""
        batch = {} if self.data.batch is None else {"batch_size": self.data.batch}
        arch = {"arch_kwargs": dict(self.candidate.arch)} if self.candidate.arch else {}
        return {**batch, **self.candidate.configuration, **arch}

    @property
    def plans(self) -> str:
        """Name of the plans to train with: a changed copy has a name of its own."""
        name = self.candidate.plans
        return f"{name}_{self.candidate.name.replace('-', '_')}" if self.changes else name

    @property
    def slicing(self) -> str | None:
        three, slicing = self.data.configuration.startswith("3d"), self.candidate.slicing
        if slicing is not None and slicing.isdigit():
            return "x".join([slicing] * (3 if three else 2))
        return ("2x4x2" if three else "2x4") if slicing == "fixed" else slicing

    def row(self) -> dict[str, Any]:
        """Cells of runs.csv that are known before the training begins."""
        candidate = self.candidate
        return {
            **{"id": self.id, "data": self.data.name, "fold": self.fold, "repeat": self.repeat},
            **{"configuration": self.data.configuration, "candidate": candidate.name, "state": "unfinished"},
            **{"epochs": self.epochs, "iterations": self.iterations, "planner": " ".join(candidate.planner)},
            **{"plans": self.plans, "plans_changes": _json(self.changes), "trainer": candidate.trainer},
            **{"trainer_settings": _json(candidate.settings), "slicing": self.slicing},
            "prediction": candidate.prediction,
            **candidate.columns,
        }


def check_definitions(runs: Sequence[Run], known: Mapping[str, results.Row]) -> None:
    """Raises ValueError where known results with a run's id are of another definition of its candidate."""
    for run in runs:
        row, old = run.row(), known.get(run.id, {})
        differing = [key for key in DEFINITION if old and (row[key] or "") != old[key]]
        if differing:
            raise ValueError(
                f"there are results of {run.id} with another {', '.join(differing)}; give the candidate another name"
            )


def _json(values: Mapping[str, Any]) -> str | None:
    return json.dumps(values, sort_keys=True) if values else None
