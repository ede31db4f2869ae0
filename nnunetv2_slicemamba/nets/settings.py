"""Settings of a network, checked as a whole: its shape, its blocks, and what it has beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nnunetv2_slicemamba.nets.checks import check_lists, check_positive
from nnunetv2_slicemamba.nets.resolutions import output_scales, stem_strides
from nnunetv2_slicemamba.slicing.candidates import Slicing, check_candidates

if TYPE_CHECKING:
    from typing_extensions import Self

SKIPS = ("add", "concatenate")
NESTED = ("strides", "kernel_sizes")  # settings with an entry per stage and axis


@dataclass(frozen=True)
class SharedSettings:
    """Arguments that all networks with S3 blocks have, under the names that plans give them.

    input_channels, num_classes: of the data. n_stages: resolutions. features_per_stage: channels per stage. strides:
    per stage, one int per axis; a stride of 1 keeps an axis. n_blocks_per_stage: S3 blocks per encoder stage;
    n_blocks_per_stage_decoder: per decoder stage, lowest resolution first. d_state, expand, scan, normalise_scan: see
    BSS. drop_path_rate: stochastic depth, rising linearly over the encoder's blocks, falling over the decoder's.
    deep_supervision: return logits at all `output_scales` instead of the full resolution only.
    activation_checkpointing: blocks are computed again in the backward pass instead of keeping what they need for it
    (less memory, about a third more time). candidates: of a supernet's block, thicknesses, "no-scan" and "no-block";
    None for {2, 4}^n. A network of one path has no use for them.

    Raises ValueError naming the first setting that is out of range or does not fit the others.
    """

    input_channels: int
    num_classes: int
    n_stages: int
    features_per_stage: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    n_blocks_per_stage: tuple[int, ...]
    n_blocks_per_stage_decoder: tuple[int, ...]
    d_state: int = 16
    expand: int = 2
    drop_path_rate: float = 0.2
    deep_supervision: bool = False
    activation_checkpointing: bool = False
    candidates: Slicing | None = None
    scan: bool = field(default=True, kw_only=True)
    normalise_scan: bool = field(default=False, kw_only=True)

    least_blocks: ClassVar[int] = 1  # of a stage

    @classmethod
    def from_arguments(cls, *arguments: Any, **options: Any) -> Self:
        """Settings from a network's arguments, in which sequences may be lists, as in plans."""
        return cls(*map(_frozen, arguments), **{name: _frozen(value) for name, value in options.items()})

    def as_arguments(self) -> dict[str, Any]:
        """Arguments of a network, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def n_dims(self) -> int:
        return len(self.strides[0])

    @property
    def n_decoder_stages(self) -> int:
        """Decoder stages, each of which has an entry in n_blocks_per_stage_decoder."""
        return self.n_stages

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Product of all stages' strides, per axis."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))

    @property
    def output_scales(self) -> list[list[float]]:
        """Resolutions of the outputs under deep supervision, relative to the input's, highest first; per axis."""
        raise NotImplementedError

    @property
    def block_options(self) -> dict[str, Any]:
        """Options of S3Block that all blocks of the network have in common, by name."""
        names = ("n_dims", "d_state", "expand", "scan", "normalise_scan")
        return {name: getattr(self, name) for name in names} | {"checkpointed": self.activation_checkpointing}

    @property
    def encoder_drop_paths(self) -> list[float]:
        """Stochastic depth of every encoder block, in order."""
        return np.linspace(0, self.drop_path_rate, sum(self.n_blocks_per_stage)).tolist()

    @property
    def decoder_drop_paths(self) -> list[float]:
        """Stochastic depth of every decoder block, in order."""
        return np.linspace(self.drop_path_rate, 0, sum(self.n_blocks_per_stage_decoder)).tolist()

    def __post_init__(self) -> None:
        self._check_shape()
        self._check_blocks()

    def _check_shape(self) -> None:
        """Channels, numbers of entries, and strides."""
        check_positive("input_channels and num_classes", (self.input_channels, self.num_classes))
        check_positive("n_stages", (self.n_stages,))
        self.check_entries("features_per_stage", "strides", "n_blocks_per_stage")
        self.check_entries("n_blocks_per_stage_decoder", decoder=True)
        strides = [list(stride) for stride in self.strides]
        n_dims = {len(stride) for stride in strides}
        if len(n_dims) != 1 or not n_dims <= {2, 3}:
            raise ValueError(
                f"strides {strides} must have 2 or 3 entries per stage, the same number in each: "
                "give one entry per spatial axis"
            )
        check_positive("strides", strides, "give 1 to keep an axis")
        check_positive("features_per_stage", self.features_per_stage)

    def check_entries(self, *names: str, decoder: bool = False) -> None:
        """Raises ValueError naming the first of these settings that lacks an entry for every stage."""
        n = self.n_decoder_stages if decoder else self.n_stages
        for name in names:
            check_lists(name, getattr(self, name), nested=name in NESTED)
            length = len(getattr(self, name))
            if length != n:
                raise ValueError(
                    f"{name} has {length} entries, but n_stages is {self.n_stages}: give one entry per stage"
                    + (f", {n} in the decoder" if n != self.n_stages else "")
                )

    def _check_blocks(self) -> None:
        """Blocks per stage, their settings, and their candidates."""
        for name in ("n_blocks_per_stage", "n_blocks_per_stage_decoder"):
            check_positive(name, getattr(self, name), least=self.least_blocks)
        check_positive("d_state and expand", (self.d_state, self.expand))
        if not 0 <= self.drop_path_rate <= 1:
            raise ValueError(f"drop_path_rate is {self.drop_path_rate}, a probability: give one from 0 to 1")
        if self.candidates is not None:
            check_candidates(self.candidates, self.n_dims)


@dataclass(frozen=True)
class NetworkSettings(SharedSettings):
    """Arguments of SliceMambaUNet and SliceMambaSupernet: those of SharedSettings and the following.

    features_per_stage: the first is a multiple of 4, and none is less than the one before. strides: strides[0] is the
    patch embedding's ([4, 4] in the paper). n_blocks_per_stage_decoder: n_stages entries, the bottleneck's first.

    The following options are not the paper's. stem_features: channels of convolutional stages, full resolution first,
    that take the patch embedding's place, with skips to convolutional decoder stages in place of the final mapping;
    strides[0] is then the stride of all of them together (see `stem_strides`). n_conv_per_stem_stage: convolutions in
    each of these. skip: how the S3 decoder takes the encoder's features, "add" or "concatenate" (and a Linear).
    embedding_skip: the patch embedding's result is added before the final mapping; only without a stem.
    """

    stem_features: tuple[int, ...] = ()
    n_conv_per_stem_stage: int = 2
    skip: str = "add"
    embedding_skip: bool = False

    @property
    def output_scales(self) -> list[list[float]]:
        return output_scales(self.strides, len(self.stem_features))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_stem_and_skips()
        features = self.features_per_stage
        if features[0] % 4 and not self.stem_features:
            raise ValueError(
                f"features_per_stage[0] is {features[0]}; the final mapping needs a multiple of 4: "
                f"give {max(1, round(features[0] / 4)) * 4}"
            )
        if any(b < a for a, b in pairwise(features)):
            raise ValueError(f"features_per_stage {list(features)} must not shrink with depth: give ascending widths")

    def _check_stem_and_skips(self) -> None:
        """The options that are not the paper's."""
        check_lists("stem_features", self.stem_features)
        check_positive("stem_features", self.stem_features)
        if self.n_conv_per_stem_stage < 1:
            raise ValueError(f"n_conv_per_stem_stage is {self.n_conv_per_stem_stage}, it must be at least 1: give 2")
        if self.skip not in SKIPS:
            raise ValueError(f"skip is {self.skip!r}; give one of {', '.join(SKIPS)}")
        if self.embedding_skip and self.stem_features:
            raise ValueError(
                f"embedding_skip is for networks with a patch embedding, stem_features {list(self.stem_features)} "
                "replace it and have skips of their own: give one of the two"
            )
        if self.stem_features:
            stem_strides(self.strides[0], len(self.stem_features))


def _frozen(value: Any) -> Any:
    """The value with its sequences as tuples and its whole numbers as ints."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(map(_frozen, value))
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value
