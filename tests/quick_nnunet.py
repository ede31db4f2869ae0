"""nnU-Net in less time: what takes seconds of every small plan or training and what no test looks at.

patch: sets an attribute; MonkeyPatch.setattr where what is patched is to be put back.
"""

from __future__ import annotations

import multiprocessing.dummy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Patch = Callable[[Any, str, Any], None]


def sample_fewer_voxels(patch: Patch = setattr) -> None:
    """Intensity statistics of 10,000 voxels: nnU-Net draws 100 million, however small the data are."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor as Extractor,
    )

    construct = Extractor.__init__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = 10_000

    patch(Extractor, "__init__", initialize)


def preprocess_in_threads(patch: Patch = setattr) -> None:
    """Cases are worked on in threads of this process: every process of nnU-Net's pools imports PyTorch anew."""
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.preprocessing.preprocessors import default_preprocessor

    threads = SimpleNamespace(get_context=lambda method: multiprocessing.dummy)
    patch(default_preprocessor, "multiprocessing", threads)
    patch(fingerprint_extractor, "multiprocessing", threads)


def draw_no_progress(patch: Patch = setattr) -> None:
    """An empty progress.png: nnU-Net draws 3,000 by 5,400 pixels after every epoch."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    patch(LocalLogger, "plot_progress_png", lambda self, output_folder: Path(output_folder, "progress.png").touch())
