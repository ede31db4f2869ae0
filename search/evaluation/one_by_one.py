"""Evaluation of a path by nnU-Net itself: the slow twin of path_evaluation, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn, region_or_label_to_mask
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray

from nnunetv2_slicemamba.nets import Supernet
from nnunetv2_slicemamba.search.evaluation.supernet_fold import (
    MIRRORING,
    TILE_STEP_SIZE,
    SupernetFold,
    ValidationCase,
    quiet,
)
from nnunetv2_slicemamba.search.fitness import evaluation_of_counts
from nnunetv2_slicemamba.search.records import Evaluation
from nnunetv2_slicemamba.slicing.candidates import Architecture


class OneByOne:
    """Evaluates a path with nnU-Net's predictor and evaluation, case by case.

    predictor: knows network, patch size and labels. cases: as SupernetFold.cases gives them. Half-precision sums in
    nnU-Net's sliding window make single voxels differ from SupernetFold's.
    """

    def __init__(
        self,
        network: Supernet,
        predictor: nnUNetPredictor,
        cases: Sequence[ValidationCase],
        label_manager: LabelManager,
    ) -> None:
        self.predictor = predictor
        self._network, self._cases, self._labels = network, cases, label_manager

    @classmethod
    def of_fold(cls, fold: SupernetFold) -> OneByOne:
        """An evaluation with the cases, the settings and the network itself of a fold."""
        fold.load()
        with quiet():
            predictor = nnUNetPredictor(
                tile_step_size=TILE_STEP_SIZE, use_mirroring=MIRRORING, device=fold.device, allow_tqdm=False
            )
        trainer = fold.nnunet_trainer
        predictor.manual_initialization(
            fold.network,
            trainer.plans_manager,
            trainer.configuration_manager,
            None,  # a list of parameters would be loaded for every case and reset the path
            trainer.dataset_json,
            fold.folder.trainer,
            None,
        )
        return cls(fold.network, predictor, fold.cases(), fold.label_manager)

    def __call__(self, architecture: Architecture) -> Evaluation:
        """The fitness of the path over the cases, see search.fitness."""
        self._network.set_architecture(architecture)
        return evaluation_of_counts(np.stack([self._count(case) for case in self._cases]))

    def _count(self, case: ValidationCase) -> NDArray[np.int64]:
        """(classes, 3) true positives, false positives, false negatives, as nnU-Net's evaluation counts them."""
        manager = self._labels
        logits = self.predictor.predict_sliding_window_return_logits(case.data)
        assert isinstance(logits, torch.Tensor)
        predicted = manager.convert_logits_to_segmentation(logits.cpu()).numpy()[None]
        ignored = case.truth == manager.ignore_label if manager.has_ignore_label else None
        classes = manager.foreground_regions if manager.has_regions else manager.foreground_labels
        counted = [
            compute_tp_fp_fn_tn(region_or_label_to_mask(case.truth, c), region_or_label_to_mask(predicted, c), ignored)[
                :3
            ]
            for c in classes
        ]
        return np.array(counted, dtype=np.int64)
