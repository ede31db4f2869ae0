"""What do the figures of a fold's search show? Everything they need, gathered once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import chosen_record, feasible_of
from nnunetv2_slicemamba.search.records import History, Record
from nnunetv2_slicemamba.slicing.candidates import Slicing

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.selection import Selection

N_BEST = 50


@dataclass(frozen=True)
class Stage:
    """One resolution of the U-shape. reduction: cumulated stride per axis, image voxels per token. channels: width."""

    encoder_blocks: int
    decoder_blocks: int
    channels: int
    reduction: tuple[int, ...]


@dataclass(frozen=True)
class FoldChoice:
    """What another fold's search found. slicing: None if it has no best_slicing.json yet. history: its evaluations."""

    slicing: Slicing | None
    history: History


@dataclass(frozen=True)
class FigureData:
    """A fold's search, ready to be drawn.

    records: of all evaluations, ordered by (generation, index). candidates: thickness per candidate index. stages:
    highest resolution first. folds: every searched fold, this one included, by name. cost: what the search measured
    beside the fitness, None for nothing.
    Raises ValueError if no record has a defined fitness, or none that has is within the cost's limit.
    """

    dataset: str
    configuration: str
    plans_name: str
    trainer: str
    fold: str
    records: Sequence[Record]
    candidates: Slicing
    stages: Sequence[Stage]
    folds: Mapping[str, FoldChoice] = field(default_factory=dict)
    cost: Cost | None = None

    def __post_init__(self) -> None:
        if chosen_record(self.records, self.cost) is None:
            within = "" if self.cost is None or self.cost.limit is None else f" within {self.cost.flag}"
            raise ValueError(f"there is nothing to draw: no record has a defined fitness{within}")

    @property
    def best(self) -> Record:
        best = chosen_record(self.records, self.cost)
        assert best is not None
        return best

    @property
    def eligible(self) -> list[Record]:
        """The records of defined fitness within the cost's limit."""
        return feasible_of(self.records, self.cost)

    @property
    def slicing(self) -> Slicing:
        """Of the best architecture."""
        return tuple(self.candidates[index] for index in self.best.architecture)

    @property
    def n_blocks(self) -> int:
        return len(self.best.architecture)

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.configuration}, fold {self.fold}"

    @property
    def block_names(self) -> list[str]:
        """e1.1, e1.2, ... of the encoder from the highest resolution down, then d4.1, ... of the decoder upwards."""
        names = [f"e{i}.{j + 1}" for i, stage in enumerate(self.stages, 1) for j in range(stage.encoder_blocks)]
        upwards = reversed(list(enumerate(self.stages, 1)))
        return names + [f"d{i}.{j + 1}" for i, stage in upwards for j in range(stage.decoder_blocks)]

    @property
    def stage_names(self) -> list[tuple[str, int]]:
        """(name, number of blocks) in network order; a decoder stage has the number of its resolution."""
        encoder = [(f"encoder {i}", stage.encoder_blocks) for i, stage in enumerate(self.stages, 1)]
        decoder = [(f"decoder {i}", stage.decoder_blocks) for i, stage in enumerate(self.stages, 1)]
        return [*encoder, *reversed(decoder)]


def stages_of_network(selection: Selection) -> list[Stage]:
    """The U-shape of the selection's network, highest resolution first."""
    kwargs = selection.arch_kwargs
    reduction = (1,) * selection.n_dims
    stages = []
    # the decoder's first stage works at the bottleneck's resolution
    decoder = reversed(kwargs["n_blocks_per_stage_decoder"])
    sizes = zip(kwargs["strides"], kwargs["features_per_stage"], kwargs["n_blocks_per_stage"], decoder, strict=True)
    for strides, channels, encoder_blocks, decoder_blocks in sizes:
        reduction = tuple(total * int(step) for total, step in zip(reduction, strides, strict=True))
        stages.append(Stage(int(encoder_blocks), int(decoder_blocks), int(channels), reduction))
    return stages
