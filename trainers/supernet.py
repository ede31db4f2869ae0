"""SliceMambaSupernetTrainer: trains one randomly drawn path of the supernet per iteration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.paths import nnUNet_results

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.names import final_trainer_name
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.nets.path_supernet import Supernet
from nnunetv2_slicemamba.slicing.candidate_sets import CHECKPOINT_KEY as CANDIDATES_KEY
from nnunetv2_slicemamba.slicing.candidate_sets import check_trained_candidates
from nnunetv2_slicemamba.slicing.candidates import Architecture, listed
from nnunetv2_slicemamba.slicing.holdout_file import CHECKPOINT_KEY, check_trained_with, holdout_in
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer
from nnunetv2_slicemamba.trainers.held_out import HeldOutCases
from nnunetv2_slicemamba.trainers.settings import PREVIOUS_STAGE_VARIABLE


def path_generator(seed: int, iteration: int) -> torch.Generator:
    """The generator of one iteration's path: a function of (seed, iteration) alone.

    Every rank and every continued training therefore follow the same sequence of paths.
    """
    state = np.random.SeedSequence([seed, iteration]).generate_state(1, dtype=np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class SliceMambaSupernetTrainer(HeldOutCases, SliceMambaBaseTrainer):
    """Trains the supernet that `slicemamba search` evaluates.

    Every iteration draws an architecture (see Supernet.sample_architecture) and updates that path. Validation uses one
    path throughout, so that its curve compares epochs and not paths; that path is stored in the network's
    `architecture` buffer.

    The cases of the fold's holdout.json (`slicemamba holdout`), if there is one, are left out of training and are the
    validation cases. Checkpoints record the holdout; `--c` and `--val` beside another one are refused.

    In a cascade, the second stage reads the first stage's predictions of the final trainer with the same suffix, or of
    the one that SLICEMAMBA_PREVIOUS_STAGE names.
    """

    role: ClassVar[str] = "supernet"
    supernet_arguments: ClassVar[Mapping[str, Any]] = {}
    path_seed: ClassVar[int] = 12345
    # the draw of the path that validation uses; no training iteration is negative
    validation_draw: ClassVar[int] = 2**40
    network: Any
    my_init_kwargs: dict[str, Any]

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int | str,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_cascaded and nnUNet_results.is_set():
            # the previous stage's predictions come from the final trainer, not from a supernet
            own = type(self).__name__
            final = os.environ.get(PREVIOUS_STAGE_VARIABLE) or final_trainer_name(own)
            predictions = vars(self)["folder_with_segs_from_previous_stage"]
            self.folder_with_segs_from_previous_stage = predictions.replace(f"{own}__", f"{final}__")

    def initialize(self) -> None:
        if self.is_cascaded and self.folder_with_segs_from_previous_stage is not None:
            require_predictions(Path(self.folder_with_segs_from_previous_stage))
        super().initialize()
        # a signal's checkpoint is written when another object stands for the network
        self.candidates = plain_json(self.supernet.candidates)

    def save_checkpoint(self, filename: str) -> None:
        # of all that nnU-Net puts into a checkpoint, only this dictionary can be added to without a second writing
        self.my_init_kwargs = {**self.my_init_kwargs, CANDIDATES_KEY: self.candidates}
        if self.holdout is not None:
            self.my_init_kwargs[CHECKPOINT_KEY] = self.holdout.as_dict()
        super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        recorded = holdout_in(self.my_init_kwargs)
        check_trained_with(recorded, self.holdout, Path(self.output_folder), type(self).__name__)
        check_trained_candidates(self.my_init_kwargs, self.supernet.candidates, Path(self.output_folder))

    def _do_i_compile(self) -> bool:
        # the path changes in every iteration: each would be compiled anew
        return False

    @property
    def supernet(self) -> Supernet:
        network = self.bare_network
        assert isinstance(network, Supernet)
        return network

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.current_epoch == 0:
            generator = path_generator(self.paths_from, self.validation_draw)
            self.supernet.set_architecture(self.supernet.sample_architecture(generator, path_dropout=False))
        super().on_train_start()

    @property
    def paths_from(self) -> int:
        """The seed of the paths."""
        return self.path_seed if self.seed is None else self.seed

    def train_step(self, batch: dict) -> dict:
        self.draw_path(self.iteration)
        return super().train_step(batch)

    def record_graphs(self, data: torch.Tensor) -> None:
        if self.seed is None:
            super().record_graphs(data)
            return
        # a block's first passes run without its graph, and round differently: a continued training has other first ones
        self.tried_to_record = True
        if self.device.type == "cuda":
            self.print_to_log_file("training steps replay no CUDA graphs: SLICEMAMBA_SEED is set")

    def draw_path(self, iteration: int) -> Architecture:
        """Selects and returns the path of a global iteration."""
        return self.supernet.sample_architecture(path_generator(self.paths_from, iteration))

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.supernet.restore_architecture()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.supernet.restore_architecture()
        super().perform_actual_validation(save_probabilities)

    def describe_path(self) -> str:
        return f"path {listed(self.supernet.candidates[index] for index in self.supernet.get_architecture())}"


class SliceMambaSharedSupernetTrainer(SliceMambaSupernetTrainer):
    """The supernet with one set of weights per block position, used by all candidate slicings."""

    supernet_arguments: ClassVar[Mapping[str, Any]] = {"share_weights": True}


def require_predictions(folder: Path) -> None:
    """Raises FileNotFoundError, naming what makes them, if there are no predictions of a cascade's first stage.

    folder: nnUNet_results/DATASET/TRAINER__PLANS__STAGE/predicted_next_stage/CONFIG.
    """
    if folder.is_dir():
        return
    trained = folder.parents[1]
    trainer, plans, stage = trained.name.split("__")
    command = shell_line("nnUNetv2_train", trained.parent.name, stage, "FOLD", "-tr", trainer, "-p", plans)
    raise FileNotFoundError(
        f"there is no {folder}, the first stage's predictions: '{command}' makes them, for every FOLD. If another "
        f"final trainer made them, name it: export {PREVIOUS_STAGE_VARIABLE}=TRAINER"
    )
