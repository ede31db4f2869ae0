"""Trainers that leave a fold's held-out cases out of training and validate on them."""

from __future__ import annotations

from functools import cached_property

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.slicing.holdout_file import Holdout, check_fits, holdout_path, read_holdout


class HeldOutCases(nnUNetTrainer):
    """nnU-Net's trainer whose split follows the holdout.json in its own fold folder, if there is one.

    `slicemamba holdout` writes one for a supernet. Only the finalists of a search have one among other trainings.
    """

    @cached_property
    def holdout(self) -> Holdout | None:
        """The fold's holdout as it was when this trainer first asked; None without one."""
        return read_holdout(holdout_path(self.output_folder)) if self.output_folder else None

    def full_split(self) -> tuple[list[str], list[str]]:
        """The fold's training and validation cases in nnU-Net's split, before the holdout."""
        return super().do_split()

    def do_split(self) -> tuple[list[str], list[str]]:
        training, validation = self.full_split()
        if self.holdout is None:
            return training, validation
        path = holdout_path(self.output_folder)
        names = (self.plans_manager.dataset_name, self.plans_manager.plans_name, self.configuration_name, self.fold)
        check_fits(self.holdout, path, names, training, validation)
        kept = self.holdout.without(training)
        self.print_to_log_file(
            f"{path} holds out {count(len(self.holdout.cases), 'training case')} to validate on, in place of the "
            f"fold's validation cases, and leaves {count(len(kept), 'case')} to train with"
        )
        return kept, list(self.holdout.cases)
