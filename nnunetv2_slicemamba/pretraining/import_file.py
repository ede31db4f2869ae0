"""`slicemamba import`: from a checkpoint on disk to a file for `-pretrained_weights`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nnunetv2_slicemamba.common.checkpoints import non_finite
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.provenance import installed_versions, now
from nnunetv2_slicemamba.common.safe_reading import names_in, read_checkpoint
from nnunetv2_slicemamba.nets.path_supernet import Supernet
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.pretraining.importing import Adaptations, Imported, import_weights
from nnunetv2_slicemamba.pretraining.naming import CROSS_SCANNED, KINDS, Checkpoint, identify
from nnunetv2_slicemamba.pretraining.weights_file import (
    choose,
    planned_network,
    require_patch_embedding,
    require_target,
    write_weights,
)
from nnunetv2_slicemamba.slicing.candidates import Architecture, Slicing, candidate_text, in_order, listed
from nnunetv2_slicemamba.slicing.choice import SlicingChoice


@dataclass(frozen=True)
class ImportRequest:
    """Settings of an import.

    kind: whose the source is; None: told from its names. average: its moving average. slicing: of the result, as
    `--set` or "fold", None: the source's. supernet: for the supernet trainer. trainer: the supernet trainer whose
    searches a consensus reads.
    Raises InputError for a kind that there is not.
    """

    source: Path
    target: Path
    kind: str | None = None
    average: bool = False
    slicing: str | None = None
    supernet: bool = False
    trainer: str = "SupernetTrainer"
    adaptations: Adaptations = field(default_factory=Adaptations)

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"a source is one of {', '.join(KINDS)}, not {self.kind!r}")


@dataclass(frozen=True)
class ImportResult:
    """Outcome of an import: what was loaded, the kind of network, its slicing, and the JSON record that was written."""

    imported: Imported
    network: str
    slicing: Slicing | None
    slicing_origin: str
    record: Mapping[str, Any]
    record_file: Path


def import_file(selection: Selection, request: ImportRequest) -> ImportResult:
    """Imports a checkpoint for a selection's network and writes weights and record.

    Raises InputError, before anything is written, for a source that cannot be read or does not fit.
    """
    require_patch_embedding(selection)
    require_target(request.target, request.source)
    loaded = read_checkpoint(request.source)
    if not isinstance(loaded, Mapping):
        raise InputError(f"{request.source} holds a {type(loaded).__name__}, not named weights")
    try:
        checkpoint = identify(loaded, request.kind, request.average)  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{request.source}: {error}") from None
    if not checkpoint.weights:
        raise InputError(f"{request.source} holds no weights; it has: {names_in(loaded)}")
    if problem := non_finite(checkpoint.weights):
        raise InputError(f"{request.source} cannot be used: {problem}; import another checkpoint of that training")
    choice = None if request.slicing is None else choose(SupernetFolder(selection, request.trainer), request.slicing)
    # a published supernet with a slicing is cut to that path
    cut = checkpoint.supernet and choice is not None and not request.supernet
    network = planned_network(selection, supernet=request.supernet or checkpoint.supernet)
    imported = import_weights(checkpoint, network, request.adaptations)
    network.load_state_dict(imported.state_dict)
    if cut:
        assert isinstance(network, Supernet)
        assert choice is not None
        network = network.extract(indices_of(choice, network.candidates))
    origin = set_slicing(network, checkpoint, choice)
    slicing = network.get_slicing() if isinstance(network, SlicedNetwork) else None
    record = {
        "what": "weights for nnUNetv2_train -pretrained_weights, imported by nnunetv2_slicemamba",
        "source": {
            "file": request.source.name,
            "sha256": sha256_of_file(request.source),
            "kind": checkpoint.kind,
            "contains": "classifier" if checkpoint.classifier else "supernet" if checkpoint.supernet else "network",
            "moving_average": request.average,
        },
        "network": type(network).__name__,
        "dataset": selection.dataset,
        "configuration": selection.configuration,
        "plans_name": selection.plans_name,
        "slicing": slicing,
        "slicing_origin": origin,
        "loaded": [asdict(e) for e in imported.entries if not e.changes],
        "adapted": [asdict(e) for e in imported.entries if e.changes],
        "skipped": imported.skipped,
        "initialised": imported.initialised,
        "versions": installed_versions(),
        "created": now(),
    }
    written = write_weights(request.target, network.state_dict(), record)
    return ImportResult(imported, type(network).__name__, slicing, origin, record, written)


def set_slicing(network: torch.nn.Module, checkpoint: Checkpoint, choice: SlicingChoice | None) -> str:
    """Gives the network the chosen slicing, else the source's; returns in words where it is from."""
    if not isinstance(network, SlicedNetwork):
        return "none: every path of the supernet has its own"
    if choice is not None:
        network.set_slicing(choice.slicing)
        return f"chosen ({choice.how_chosen})"
    if checkpoint.kind in CROSS_SCANNED:
        network.set_slicing([(1,) * network.n_dims] * network.n_blocks)
        return f"of {checkpoint.kind}: thickness 1"
    if "slicing" in checkpoint.weights and checkpoint.weights["slicing"].shape == network.slicing.shape:
        return "of the source"
    return "thickness 2: the source does not say; --slicing tells"


def indices_of(choice: SlicingChoice, candidates: Slicing) -> Architecture:
    """The candidate of every block; InputError if the slicing has one that the supernet has not."""
    other = in_order(set(choice.slicing) - set(candidates))
    if other:
        raise InputError(
            f"the supernet has no path with {candidate_text(other[0])}; its candidates are {listed(candidates)}"
        )
    return tuple(map(candidates.index, choice.slicing))
