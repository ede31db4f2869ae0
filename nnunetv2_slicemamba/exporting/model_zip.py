"""A trained model as a zip that nnU-Net installs, with a model card in it.

nnU-Net's own export takes the optimiser's state along, half to two thirds of a checkpoint, and summary.json, which
names paths of the machine.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.checkpoint_names import FINAL
from nnunetv2_slicemamba.common.checkpoints import WEIGHTS, read_training
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.names import class_name
from nnunetv2_slicemamba.common.nnunet_files import DATASET_JSON, SUMMARY_JSON
from nnunetv2_slicemamba.common.outputs import record_of
from nnunetv2_slicemamba.common.provenance import installed_versions, now
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.exporting.model_card import FoldFacts, ModelFacts, model_card
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.slicing.candidates import candidate_of_row, candidate_text

CARD = "model_card.md"
# beside the folds; the fingerprint is not needed to predict
SHARED = ("plans.json", "dataset.json")
OPTIONAL = ("dataset_fingerprint.json",)


def pack_model(folders: Sequence[FoldFolder], checkpoint: str, file: Path) -> ModelFacts:
    """Writes the folds of one model to the zip `file`, with FILE.json beside it; what its card says.

    checkpoint: name of each fold's. The zip only appears once it is complete. Raises InputError for a file of the model
    that is missing, CheckpointError for a checkpoint that cannot be used.
    """
    model, results = folders[0].path.parent, folders[0].path.parents[2]
    missing = [name for name in SHARED if not (model / name).is_file()]
    if missing:
        raise InputError(f"{model} has no {', '.join(missing)}, which nnU-Net writes there in training; train it anew")
    with replacing(file) as temporary:
        folds, parameters = [], 0
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:

            def add(path: Path, content: bytes) -> None:
                archive.writestr(path.relative_to(results).as_posix(), content)

            for folder in folders:
                content = without_optimizer(read_training(folder.path / checkpoint, "train the fold anew"))
                data = bytes_of(content)
                add(folder.path / checkpoint, data)
                folds.append(_facts_of(folder, content, data, _dice_of(folder) if checkpoint == FINAL else {}))
                # nnU-Net's networks have their encoder twice in the weights, in the same memory
                weights = {t.data_ptr(): t.numel() for t in content[WEIGHTS].values() if t.is_floating_point()}
                parameters = sum(weights.values())
            for name in (*SHARED, *(name for name in OPTIONAL if (model / name).is_file())):
                add(model / name, (model / name).read_bytes())
            facts = _model_facts(folders[0], folds, parameters, checkpoint)
            add(model / CARD, model_card(facts, file.name).encode())
        sizes = {"bytes": temporary.stat().st_size, "bytes_before": file.stat().st_size if file.exists() else 0}
        record = {"format": "zip", **sizes, "sha256": sha256_of_file(temporary), "created": facts.created}
        write_json(record_of(file), {**record, "folds": [one.fold for one in folds]})
    return facts


def without_optimizer(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint that still loads into a trainer, which `nnUNetv2_train --val` does."""
    kept = dict(content)
    if "optimizer_state" in kept:
        kept["optimizer_state"] = {"state": {}, "param_groups": kept["optimizer_state"].get("param_groups", [])}
    return kept


def bytes_of(content: Mapping[str, Any]) -> bytes:
    """A checkpoint as PyTorch's file."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _dice_of(folder: FoldFolder) -> dict[str, float]:
    """Dice by class, and "mean", of a fold's validation, which is the final checkpoint's; empty without one."""
    if not folder.summary.is_file():
        return {}
    summary = SUMMARY_JSON.read(folder.summary)
    labels = DATASET_JSON.read(folder.path.parent / "dataset.json")["labels"]
    # nnU-Net's key of a region is the text of a tuple
    names = {str(tuple(one) if isinstance(one, list) else one): name for name, one in labels.items()}
    dice = {names.get(key, key): _number(one["Dice"]) for key, one in summary["mean"].items()}
    return {**dice, "mean": _number(summary["foreground_mean"]["Dice"])}


def _facts_of(folder: FoldFolder, content: Mapping[str, Any], data: bytes, dice: Mapping[str, float]) -> FoldFacts:
    rows = content[WEIGHTS].get("slicing")
    blocks = [] if rows is None else [candidate_text(candidate_of_row(row)) for row in rows.tolist()]
    alike = Counter(blocks).most_common(1)
    slicing = "-" if not blocks else blocks[0] if alike[0][1] == len(blocks) else " ".join(blocks)
    fold = folder.selection.fold
    return FoldFacts(fold, int(content.get("current_epoch", 0)), dice, hashlib.sha256(data).hexdigest(), slicing)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _model_facts(folder: FoldFolder, folds: Sequence[FoldFacts], parameters: int, checkpoint: str) -> ModelFacts:
    selection = folder.selection
    manager = selection.configuration_manager
    return ModelFacts(
        dataset=selection.dataset,
        configuration=selection.configuration,
        trainer=folder.trainer,
        plans=selection.plans_name,
        description=DATASET_JSON.read(folder.path.parent / "dataset.json"),
        network=class_name(manager.network_arch_class_name),
        parameters=parameters,
        patch=manager.patch_size,
        spacing=manager.spacing,
        folds=folds,
        versions=installed_versions(),
        created=now(),
        checkpoint=checkpoint,
    )
