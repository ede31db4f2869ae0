"""Which trainings does `accuracy.py` compare, and what was expected of each before it ran?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLD = 0
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


NNUNET_TRAINER = "nnUNetTrainer_20epochs"
_NNUNET = {"trainer": NNUNET_TRAINER, "slicing": None}

CANDIDATES = (
    Candidate("stock", "0.89 on ISIC and 0.866 on the hippocampus, as measured before.", planner=STOCK, **_NNUNET),
    Candidate(
        "resenc-m",
        "Within 0.005 of stock: its gains show on large datasets and long trainings.",
        planner="ResEncM",
        **_NNUNET,
    ),
    Candidate("s", "0.01 below M: a quarter of the weights, the same receptive field.", planner="S"),
    Candidate("m", "As by hand, 0.016 and 0.027 (hippocampus) below stock: tokens of 4 voxels blur outlines."),
    Candidate("l", "Equal to M within 0.005: 320 images do not feed it in 20 epochs.", planner="L"),
    Candidate(
        "m-sgd",
        "0.05 below M: scan parameters have gradients of very different sizes, which SGD does not even out.",
        trainer="SliceMambaTrainerSgd",
    ),
    Candidate(
        "m-rate3e-4",
        "0.01 below M: with 5,000 iterations a third of the rate trains too little.",
        trainer="SliceMambaTrainerRate3e4",
    ),
    Candidate("m-rate5e-4", "Equal to M within 0.005: between 3e-4 and 1e-3.", trainer="SliceMambaTrainerRate5e4"),
    Candidate(
        "m-rate2e-3",
        "0.005 above M: short trainings like high rates, and the warm-up keeps the start stable.",
        trainer="SliceMambaTrainerRate2e3",
    ),
    Candidate("m-decay5e-2", "Equal to M within 0.003: 20 epochs hardly overfit.", trainer="SliceMambaTrainerDecay5e2"),
    Candidate("m-nowarmup", "0.005 below M: the first steps of AdamW are large.", trainer="SliceMambaTrainerNoWarmUp"),
    Candidate(
        "m-warmup1000",
        "0.005 below M: a fifth of the training at lower rates.",
        trainer="SliceMambaTrainerWarmUp1000",
    ),
    Candidate(
        "m-clip1",
        "0.003 above M: AdamW does not care for the gradients' size, but outliers reach its moments.",
        trainer="SliceMambaTrainerClip1",
    ),
    Candidate("m-noclip", "Equal to M: norms above 12 are rare.", trainer="SliceMambaTrainerNoClip"),
    Candidate(
        "m-nodeep",
        "0.005 below M: coarse outputs reach the deep stages early, which short trainings need.",
        trainer="SliceMambaTrainerNoDeep",
    ),
    Candidate(
        "m-droppath0",
        "0.01 above M: stochastic depth slows 20 epochs and guards against overfitting that does not come.",
        changes={"drop_path_rate": 0.0},
    ),
    Candidate("m-droppath0_1", "0.005 above M, half of what none gives.", changes={"drop_path_rate": 0.1}),
    Candidate("m-dstate8", "Equal to M within 0.003, a little faster.", changes={"d_state": 8}),
    Candidate("m-dstate32", "Equal to M within 0.003, a little slower.", changes={"d_state": 32}),
    Candidate("m-expand1", "0.005 below M: half the channels in every scan.", changes={"expand": 1}),
    Candidate(
        "m-shallow",
        "0.003 below M and a third faster: seven of the 22 blocks fewer, all at low resolution.",
        changes={"n_blocks_per_stage": [2, 2, 2, 2]},
    ),
    Candidate(
        "m-high",
        "0.005 above M: more blocks where the resolution is high, in the decoder above all.",
        changes={"n_blocks_per_stage": [3, 3, 6, 2], "n_blocks_per_stage_decoder": [1, 2, 3, 3]},
    ),
    Candidate(
        "m-ema",
        "0.003 above M: the rate falls to 0 by itself, which does most of what averaging does.",
        trainer="SliceMambaTrainerEma",
    ),
    Candidate(
        "m-concatenate",
        "0.002 above M: the decoder may weigh what the encoder hands over.",
        changes={"skip": "concatenate"},
    ),
    Candidate(
        "m-embeddingskip",
        "0.002 above M: the embedding's tokens know the outlines no better than 4 voxels.",
        changes={"embedding_skip": True},
    ),
    Candidate(
        "m-supernet",
        "0.05 below M on the path 2x4: every path gets a fraction of the iterations.",
        trainer="SliceMambaSupernetTrainer_20epochs",
        slicing=None,
    ),
    Candidate("m-searched", "Equal to M within 0.003: slicings hardly differ.", slicing=None, supernet="m-supernet"),
    Candidate(
        "m-inherit",
        "0.005 above M: it has seen twice the data, half of it with other slicings.",
        trainer="SliceMambaInheritTrainer_20epochs",
        slicing=None,
        supernet="m-supernet",
    ),
    Candidate(
        "m-hybrid",
        "0.01 above M on ISIC, 0.02 on the hippocampus: convolutions at full resolution draw the outlines.",
        planner="HybridM",
    ),
    Candidate(
        "l-hybrid",
        "0.002 above M's hybrid: wider S3 stages, the same convolutions.",
        planner="HybridL",
    ),
    Candidate("s-hybrid", "0.005 below M's hybrid: the outlines come from the convolutions.", planner="HybridS"),
    Candidate(
        "m-hybrid-droppath0",
        "0.005 above M's hybrid: stochastic depth slows 20 epochs, and the convolutions have none.",
        planner="HybridM",
        changes={"drop_path_rate": 0.0},
    ),
    Candidate(
        "m-hybrid-droppath0_4",
        "0.002 above M's hybrid on ISIC, 0.002 below it on the hippocampus: twice the stochastic depth, for networks "
        "that fit 320 images in a few epochs.",
        planner="HybridM",
        changes={"drop_path_rate": 0.4},
    ),
    Candidate(
        "s-hybrid-droppath0_4",
        "0.002 above S's hybrid on ISIC: that and M's with 0.4 each have fewer bad cases than M's.",
        planner="HybridS",
        changes={"drop_path_rate": 0.4},
    ),
    Candidate(
        "m-hybrid-decay5e-2",
        "0.001 above M's hybrid on ISIC: weights shrink by half over the training at most.",
        planner="HybridM",
        trainer="SliceMambaTrainerDecay5e2",
    ),
    Candidate(
        "m-hybrid-rate2e-3",
        "0.003 above M's hybrid: short trainings like high rates.",
        planner="HybridM",
        trainer="SliceMambaTrainerRate2e3",
    ),
    Candidate(
        "m-hybrid-sgd",
        "0.02 below M's hybrid: its convolutions are nnU-Net's and like SGD, its scans do not.",
        planner="HybridM",
        trainer="SliceMambaTrainerSgd",
    ),
    Candidate(
        "m-hybrid-ema",
        "Equal to M's hybrid within 0.002: the rate falls to 0 by itself.",
        planner="HybridM",
        trainer="SliceMambaTrainerEma",
    ),
    Candidate(
        "m-hybrid-nodeep",
        "0.003 below M's hybrid: as without the stem.",
        planner="HybridM",
        trainer="SliceMambaTrainerNoDeep",
    ),
    Candidate(
        "m-hybrid-concatenate",
        "0.002 above M's hybrid: as without the stem.",
        planner="HybridM",
        changes={"skip": "concatenate"},
    ),
    Candidate(
        "m-hybrid-sampledice",
        "0.003 above M's hybrid on ISIC: the metric is a mean over cases, and pooled over a batch a lost small lesion "
        "costs nothing; equal on the hippocampus, whose plans have it already.",
        planner="HybridM",
        trainer="SliceMambaTrainerSampleDice",
    ),
    Candidate(
        "s-hybrid-sampledice",
        "0.003 above S's hybrid on ISIC, for M's reason: its mean hangs on one case that it all but loses; equal on "
        "the hippocampus.",
        planner="HybridS",
        trainer="SliceMambaTrainerSampleDice",
    ),
    Candidate(
        "m-hybrid-rate3e-4",
        "0.01 below M's hybrid: with 5,000 iterations a third of the rate trains too little.",
        planner="HybridM",
        trainer="SliceMambaTrainerRate3e4",
    ),
    Candidate(
        "m-hybrid-rate5e-4",
        "Equal to M's hybrid within 0.003: on ISIC it fits the training images early enough to afford half the rate.",
        planner="HybridM",
        trainer="SliceMambaTrainerRate5e4",
    ),
    Candidate(
        "m-hybrid-nowarmup",
        "0.002 below M's hybrid: the first steps of AdamW are large, the convolutions' norms bear them.",
        planner="HybridM",
        trainer="SliceMambaTrainerNoWarmUp",
    ),
    Candidate(
        "m-hybrid-clip1",
        "Equal to M's hybrid within 0.002: AdamW evens out the gradients' size, and outliers are rare.",
        planner="HybridM",
        trainer="SliceMambaTrainerClip1",
    ),
    Candidate(
        "m-hybrid-noclip",
        "Equal to M's hybrid within 0.002: norms above 12 are rare.",
        planner="HybridM",
        trainer="SliceMambaTrainerNoClip",
    ),
    Candidate(
        "m-hybrid-dstate8",
        "Equal to M's hybrid within 0.002, a little faster: half the states, and outlines come from the convolutions.",
        planner="HybridM",
        changes={"d_state": 8},
    ),
    Candidate(
        "m-hybrid-dstate32",
        "Equal to M's hybrid within 0.002, a little slower: twice the states, which 320 images do not need.",
        planner="HybridM",
        changes={"d_state": 32},
    ),
    Candidate(
        "m-hybrid-expand1",
        "0.003 below M's hybrid: half the channels in every scan, less than without the stem, which has none.",
        planner="HybridM",
        changes={"expand": 1},
    ),
    Candidate(
        "m-hybrid-shallow",
        "0.001 below M's hybrid on ISIC and faster: seven of the 22 blocks fewer, all at low resolution. Networks of "
        "two stages, as on the hippocampus, have none of them.",
        planner="HybridM",
        changes={"n_blocks_per_stage": [2, 2, 2, 2]},
    ),
    Candidate(
        "m-hybrid-high",
        "0.002 above M's hybrid: more blocks where the resolution is high, where its convolutions already are.",
        planner="HybridM",
        changes={"n_blocks_per_stage": [3, 3, 6, 2], "n_blocks_per_stage_decoder": [1, 2, 3, 3]},
    ),
    Candidate(
        "m-hybrid-supernet",
        "0.02 below M's hybrid on the path 2x4: the convolutions are in every path.",
        planner="HybridM",
        trainer="SliceMambaSupernetTrainer_20epochs",
        slicing=None,
    ),
    Candidate(
        "m-hybrid-paths",
        "0.002 above M's hybrid on ISIC, for the supernet's reason: its blocks cannot rely on one slicing.",
        planner="HybridM",
        trainer="SliceMambaTrainerPaths",
    ),
    Candidate(
        "m-hybrid-shared",
        "0.002 above M's hybrid on ISIC: the same weights as M's, for another path in every iteration, which keeps "
        "them from fitting one; separate weights reached 0.8959.",
        planner="HybridM",
        trainer="SliceMambaSharedSupernetTrainer_20epochs",
        slicing=None,
    ),
    Candidate(
        "m-hybrid-searched",
        "Equal to M's hybrid within 0.003: slicings hardly differ.",
        planner="HybridM",
        slicing=None,
        supernet="m-hybrid-supernet",
    ),
    Candidate(
        "m-hybrid-inherit",
        "0.005 above M's hybrid: twice the data.",
        planner="HybridM",
        trainer="SliceMambaInheritTrainer_20epochs",
        slicing=None,
        supernet="m-hybrid-supernet",
    ),
)


@dataclass(frozen=True)
class Run:
    """A candidate on a dataset. repeat: from 2 on, another training with the same settings, to see the noise."""

    dataset: Dataset
    candidate: Candidate
    repeat: int = 1

    @property
    def name(self) -> str:
        return f"{self.dataset.key}-{self.candidate.name}" + (f".{self.repeat}" if self.repeat > 1 else "")

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
        return Run(self.dataset, found)


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
    """The run of a name such as isic2017-m or, for another training of it, isic2017-m.2."""
    bare, _, repeat = name.partition(".")
    key, _, candidate = bare.partition("-")
    if key not in DATASETS or candidate not in candidates or not (repeat == "" or repeat.isdecimal()):
        raise ValueError(
            f"there is no run {name!r}: names are DATASET-CANDIDATE, with .2 for a second training; datasets "
            f"{', '.join(DATASETS)}; candidates {', '.join(candidates)}"
        )
    return Run(DATASETS[key], candidates[candidate], int(repeat or 1))
