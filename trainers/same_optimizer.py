"""Trainings that go on with the kind of optimiser that they began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim import Optimizer

from nnunetv2_slicemamba.trainers.recipe import RECIPES

# entry of an optimiser's groups -> its kind
_KIND_BY_ENTRY = {"betas": "AdamW", "momentum": "SGD"}


class SameOptimizer(nnUNetTrainer):
    """A mix-in: no training goes on with another kind of optimiser than its checkpoint's.

    The state of another kind is not loaded, so that such a network can still be validated.
    """

    refusal: str | None = None

    def initialize(self) -> None:
        super().initialize()
        self.optimizer.register_load_state_dict_pre_hook(self._only_of_same_kind)

    def on_train_start(self) -> None:
        if self.refusal is not None and self.current_epoch < self.num_epochs:
            raise ValueError(self.refusal)
        super().on_train_start()

    def _only_of_same_kind(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        began, own = kinds_of(state["param_groups"]), kinds_of(optimizer.param_groups)
        self.refusal = None
        if not began or not own or began == own:
            return state
        names = " or ".join(f'"{name}"' for name in RECIPES if kinds_of_recipe(name) == began)
        self.refusal = (
            f"the training in {self.output_folder} began with {' and '.join(sorted(began))}, {type(self).__name__} has "
            f"{' and '.join(sorted(own))}: continue it with a subclass of this trainer that has optimizer_name = "
            f"{names}, after moving the folder to where that trainer writes; or move it away to train anew"
        )
        return optimizer.state_dict()


def kinds_of(groups: Sequence[Mapping[str, Any]]) -> set[str]:
    """Kinds of the optimisers that groups of parameters are of; empty if one is not known."""
    found = [next((kind for entry, kind in _KIND_BY_ENTRY.items() if entry in group), None) for group in groups]
    return set() if None in found else {kind for kind in found if kind is not None}


def kinds_of_recipe(name: str) -> set[str]:
    """Kinds of the optimisers of a recipe: AdamW, SGD or both."""
    return {kind for kind in _KIND_BY_ENTRY.values() if kind.lower() in name.split("-")}
