"""Import of weights into a network of ours: loaded, adapted or skipped, with a record of which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.nets.base import SliceMambaBase
from nnunetv2_slicemamba.nets.supernet import SliceMambaSupernet
from nnunetv2_slicemamba.pretraining.fitting import (
    INFLATIONS,
    Layout,
    adapt_input_channels,
    background_and_foreground,
    inflate,
    select_widths,
)
from nnunetv2_slicemamba.pretraining.naming import (
    BUFFERS,
    CLASSIFIER,
    CROSS_SCANNED,
    IMAGE_KERNELS,
    PER_DIRECTION,
    STEM,
    Checkpoint,
    reorder_directions,
)
from nnunetv2_slicemamba.pretraining.vmamba_versions import FITTING, reasons
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK

BLOCK = re.compile(r"(encoder|decoder)\.stages\.(\d+)\.blocks\.(\d+)\.(.*)")


@dataclass(frozen=True)
class Adaptations:
    """Changes that are allowed to weights that do not fit as they are.

    select_widths: cut wider weights down. inflation: how 2D kernels become 3D ones, "mean" or "center", or None.
    """

    select_widths: bool = False
    inflation: str | None = None

    def __post_init__(self) -> None:
        if self.inflation not in (None, *INFLATIONS):
            raise InputError(f"weights are inflated by {' or '.join(INFLATIONS)}, not by {self.inflation!r}")


@dataclass(frozen=True)
class Entry:
    """A weight that went from a checkpoint into a network. changes: in words, empty where it was only renamed."""

    theirs: str
    ours: str
    shape_theirs: tuple[int, ...]
    shape_ours: tuple[int, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    state_dict: for the network's load_state_dict. entries: what went in. skipped: their name -> why it did not.
    initialised: names of ours that nothing in the checkpoint is for; they have the network's own values.
    """

    state_dict: dict[str, Tensor]
    entries: tuple[Entry, ...]
    skipped: dict[str, str]
    initialised: tuple[str, ...]


def import_weights(
    checkpoint: Checkpoint, network: SliceMambaBase, adaptations: Adaptations = Adaptations()
) -> Imported:
    """Weights of `checkpoint` for `network`, which keeps its own.

    A classifier gives the encoder and, mirrored, the blocks of the decoder, as the published code does: decoder stage j
    of S gets the first blocks of encoder stage S-1-j. A single network's weights go into every candidate of a supernet.
    The input channels, a sigmoid head of one class, and what `adaptations` allows are adapted; heads for other classes,
    a classifier's head and encoder blocks beyond this network's are skipped. VM-UNet's and VMamba's order of
    directions becomes ours. A network with a convolutional stem takes the S3 stages of one without; its stem then keeps
    its own values, and what the stem replaces is skipped. The other way round is refused.
    Raises InputError listing every weight that is unknown, missing or of another shape.
    """
    work = _Import(checkpoint, network, adaptations)
    for theirs, value in checkpoint.weights.items():
        work.take(theirs, value)
    return work.finish()


class _Import:
    def __init__(self, checkpoint: Checkpoint, network: SliceMambaBase, adaptations: Adaptations) -> None:
        self.checkpoint, self.network, self.adaptations = checkpoint, network, adaptations
        self.result = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.last_head = f"decoder.seg_layers.{len(network.decoder.seg_layers) - 1}."
        self.target = Layout.from_network(network)
        states = {v.shape[-1] for n, v in checkpoint.weights.items() if n.endswith(".A_logs") and v.ndim == 2}
        d_state = states.pop() if len(states) == 1 else self.target.d_state
        self.source = Layout(self.target.strides, d_state, self.target.directions)
        self.flat = checkpoint.n_dims == 2 and network.n_dims == 3
        self.entries: list[Entry] = []
        self.skipped: dict[str, str] = {}
        self.problems: list[str] = []
        self.refused: set[str] = set()
        if self.flat and adaptations.inflation is None:
            self.problems.append(
                "the checkpoint is of a 2D network, this one is 3D: --inflate mean or center adds depth"
            )
        self.gains_stem = network.encoder.stem is not None and not checkpoint.hybrid
        if checkpoint.hybrid and network.encoder.stem is None:
            self.problems.append(
                "the checkpoint is of a hybrid, with a convolutional stem in place of the patch embedding: give plans "
                "of 'slicemamba plan --hybrid'"
            )
        if checkpoint.n_dims == 3 and network.n_dims == 2:
            self.problems.append("the checkpoint is of a 3D network, this one is 2D")

    def take(self, theirs: str, value: Tensor) -> None:
        """Puts one weight where it belongs."""
        if self.checkpoint.classifier and CLASSIFIER.fullmatch(theirs):
            self.skipped[theirs] = "belongs to the classifier's head"
            return
        ours = self.checkpoint.our_name(theirs, self.last_head)
        if self.gains_stem and ours is not None and self._replaced_by_stem(ours):
            self.skipped[theirs] = "this network has a convolutional stem in its place"
            return
        names = [] if ours is None else list(self._places(ours))
        known = [name for name in names if name in self.result]
        if ours in BUFFERS:
            if not known or value.shape != self.result[ours].shape:
                self.skipped[theirs] = "is of a network with other blocks"
                return
        elif not known:
            block = BLOCK.fullmatch(ours or "")
            if self.checkpoint.classifier and block and int(block[3]) >= self._depth(block[1], int(block[2])) > 0:
                self.skipped[theirs] = "this network has fewer blocks in this stage; the first ones are taken"
            else:
                self.problems.append(f"{theirs}: unknown to this network")
            return
        for name in known:
            self._put(theirs, name, value)

    def _replaced_by_stem(self, ours: str) -> bool:
        """True if a weight belongs to what a network without a stem has between the S3 stages and the image."""
        head = re.match(r"decoder\.seg_layers\.(\d+)\.", ours)
        last = len(self.network.decoder.stages) - 1
        return ours.startswith(("encoder.patch_embedding.", "decoder.final_mapping.")) or (
            head is not None and int(head[1]) >= last
        )

    def _places(self, ours: str) -> Iterator[str]:
        """Names in this network that our name `ours` stands for: mirrored, and once per candidate of a supernet."""
        block = BLOCK.fullmatch(ours)
        names = [ours]
        if block and block[1] == "encoder" and self.checkpoint.classifier:
            mirrored = len(self.network.decoder.stages) - 1 - int(block[2])
            names.append(f"decoder.stages.{mirrored}.blocks.{block[3]}.{block[4]}")
        for name in names:
            block = BLOCK.fullmatch(name)
            if block and isinstance(self.network, SliceMambaSupernet) and not self.checkpoint.supernet:
                built = self.network.candidates[:1] if self.network.share_weights else self.network.candidates
                for candidate in (i for i, one in enumerate(built) if one != NO_BLOCK or self.network.share_weights):
                    yield f"{block[1]}.stages.{block[2]}.blocks.{block[3]}.{candidate}.{block[4]}"
            else:
                yield name

    def _depth(self, part: str, stage: int) -> int:
        stages = getattr(self.network, part).stages
        return len(stages[stage].blocks) if stage < len(stages) else 0

    def _put(self, theirs: str, ours: str, value: Tensor) -> None:
        wanted, changes = self.result[ours], []
        given = value
        if not value.is_floating_point():
            self._record(theirs, ours, given, value, [])
            return
        value = value.to(wanted.dtype if wanted.is_floating_point() else torch.float32)
        if self.checkpoint.kind in CROSS_SCANNED and ours.endswith(PER_DIRECTION):
            if value.shape[0] % 4:
                self._refuse(theirs, ours, f"shape {tuple(given.shape)} is not of four directions")
                return
            value = reorder_directions(value)
        if self.flat and self.adaptations.inflation is not None:
            before = value.shape
            value = inflate(ours, value, wanted.shape, self.target, self.adaptations.inflation)
            changes += [f"inflated to 3D ({self.adaptations.inflation})"] if value.shape != before else []
        if ".seg_layers." in ours and value.shape[:1] != wanted.shape[:1]:
            if not (ours.startswith(self.last_head) and value.shape[0] == 1 and wanted.shape[0] == 2):
                self.skipped[theirs] = f"head for {value.shape[0]} classes, this network has {wanted.shape[0]}"
                return
            value = background_and_foreground(value)
            changes.append("one sigmoid class became background and foreground")
        if ours in IMAGE_KERNELS and value.ndim == wanted.ndim:
            channels = value.shape[1]
            try:
                value = adapt_input_channels(value, wanted.shape[1])
            except ValueError as error:
                self._refuse(theirs, ours, str(error))
                return
            changes += [f"{channels} input channels became {value.shape[1]}"] if channels != value.shape[1] else []
        if value.shape != wanted.shape:
            reason = ""
            if self.adaptations.select_widths:
                try:
                    value = select_widths(ours, value, wanted.shape, self.source, self.target)
                    changes.append("evenly spaced channels selected")
                except ValueError as error:
                    reason = f" ({error})"
            if value.shape != wanted.shape:
                sizes = f"shape {tuple(given.shape)}, this network needs {tuple(wanted.shape)}"
                self._refuse(theirs, ours, sizes + reason)
                return
        self._record(theirs, ours, given, value, changes)

    def _refuse(self, theirs: str, ours: str, why: str) -> None:
        # a classifier's weight goes to two places, and a single network's into all candidates
        if (problem := f"{theirs}: {why}") not in self.problems:
            self.problems.append(problem)
        self.refused.add(ours)

    def _record(self, theirs: str, ours: str, given: Tensor, value: Tensor, changes: list[str]) -> None:
        self.result[ours] = value
        self.entries.append(Entry(theirs, ours, tuple(given.shape), tuple(value.shape), tuple(changes)))

    def finish(self) -> Imported:
        seen = {entry.ours for entry in self.entries} | self.refused
        initialised = [name for name in self.result if name not in seen and name not in BUFFERS]
        self.problems += [f"{name}: missing in the checkpoint" for name in initialised if not self._may_lack(name)]
        if self.problems:
            raise InputError(self._refusal())
        return Imported(self.result, tuple(self.entries), self.skipped, tuple(initialised))

    def _may_lack(self, name: str) -> bool:
        """Heads, a classifier's whole decoder, and a stem or a skip's Linear that is new have values of their own."""
        if ".seg_layers." in name or (self.checkpoint.classifier and name.startswith("decoder.")):
            return True
        return (self.gains_stem and name.startswith(STEM)) or name.endswith(".fuse.weight")

    def _refusal(self) -> str:
        kind = self.checkpoint.kind
        lines = [f"the {kind} checkpoint does not fit this network, {len(self.problems)} mismatches:"]
        if kind == "vmamba" and (why := reasons(self.checkpoint)):
            lines = [
                f"the checkpoint's blocks are not ours: {'; '.join(why)}. {FITTING}. {len(self.problems)} mismatches:"
            ]
        lines += [f"  {problem}" for problem in self.problems]
        widths = any("this network needs" in problem for problem in self.problems)
        if widths and not self.adaptations.select_widths:
            lines.append("Where only widths differ, plans of the same size fit (L has the published widths), or")
            lines.append("--widths select takes evenly spaced channels of a wider network")
        return "\n".join(lines)
