"""Model card: what somebody who gets a trained model must know of it, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_slicemamba.common.checkpoint_names import FINAL
from nnunetv2_slicemamba.common.nnunet_files import UNSTATED, terms_of
from nnunetv2_slicemamba.common.shell import shell_line


@dataclass(frozen=True)
class FoldFacts:
    """A fold of a model. dice: validation Dice by class, and "mean"; empty without a validation of the checkpoint.

    sha256: of its checkpoint as it lies in the zip. slicing: of its blocks, in words.
    """

    fold: int | str
    epochs: int
    dice: Mapping[str, float]
    sha256: str
    slicing: str


@dataclass(frozen=True)
class ModelFacts:
    """A model for its card. description: dataset.json. network: class name. versions: with which it was packed.

    checkpoint: name of each fold's.
    """

    dataset: str
    configuration: str
    trainer: str
    plans: str
    description: Mapping[str, Any]
    network: str
    parameters: int
    patch: Sequence[int]
    spacing: Sequence[float]
    folds: Sequence[FoldFacts]
    versions: Mapping[str, str]
    created: str
    checkpoint: str

    @property
    def licence(self) -> str:
        """The data's terms of use."""
        return terms_of(self.description)


def model_card(facts: ModelFacts, file: str) -> str:
    """The card of a model whose zip is called `file`."""
    data = facts.description
    labels = ", ".join(name for name in data["labels"] if name != "background")
    about = {
        "data": f"{data.get('name', facts.dataset)}, {data.get('numTraining', 'an unknown number of')} cases",
        "channels": ", ".join(map(str, data.get("channel_names", {}).values())) or UNSTATED,
        "classes": labels,
        "source": data.get("source") or UNSTATED,
        "reference": data.get("reference") or UNSTATED,
        "terms of the data": facts.licence,
        "network": f"{facts.network}, {facts.parameters / 1e6:.1f} million parameters",
        "patch, spacing": f"{_times(facts.patch)} voxels, {_times(facts.spacing)}",
        "trainer, plans": f"{facts.trainer}, {facts.plans}",
        "packed": f"{facts.created}, with {', '.join(f'{k} {v}' for k, v in facts.versions.items())}",
    }
    classes = list(dict.fromkeys(key for fold in facts.folds for key in fold.dice))
    head = ["fold", "epochs", *(f"Dice, {key}" for key in classes), "slicing", "SHA-256 of the checkpoint"]
    rows = [
        [
            str(one.fold),
            str(one.epochs),
            *(_dice(one.dice.get(key, math.nan)) for key in classes),
            one.slicing,
            one.sha256,
        ]
        for one in facts.folds
    ]
    folds = tuple(str(one.fold) for one in facts.folds)
    model = ("-d", facts.dataset, "-c", facts.configuration, "-tr", facts.trainer, "-p", facts.plans, "-f", *folds)
    is_final = facts.checkpoint == FINAL
    chosen = () if is_final else ("-chk", facts.checkpoint)
    validation = (
        "Dice of nnU-Net's validation: each fold on its own cases, which its training has not seen"
        + (" (fold all: on its training cases)." if "all" in folds else ".")
        if is_final
        else f"No Dice: nnU-Net validates {FINAL}, and this model has {facts.checkpoint}."
    )
    commands = [
        "pip install -e .    # in a clone of nnunetv2_slicemamba",
        "slicemamba register",
        shell_line("nnUNetv2_install_pretrained_model_from_zip", file),
        f"{shell_line('nnUNetv2_predict', *model, *chosen)} -i IMAGES -o OUTPUT",
    ]
    return "\n".join(
        [
            f"# {facts.dataset}, {facts.configuration}",
            "",
            *_table(["", ""], [[key, str(value)] for key, value in about.items()]),
            "",
            "## Validation",
            "",
            validation,
            "",
            *_table(head, rows),
            "",
            "## Use",
            "",
            *(f"    {command}" for command in commands),
            "",
            "The checkpoints hold no state of the optimiser: they predict, validate and can be started from, and their",
            "training cannot be continued. The model was made for research. It is not a medical device.",
            "",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in line)} |" for line in lines]


def _times(values: Sequence[float]) -> str:
    return "x".join(f"{value:g}" for value in values)


def _dice(value: float) -> str:
    return UNSTATED if math.isnan(value) else f"{value:.4f}"
