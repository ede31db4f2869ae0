"""nnU-Net's own planning and preprocessing in less time."""

from __future__ import annotations

import multiprocessing.dummy
from types import SimpleNamespace

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.preprocessing.preprocessors import default_preprocessor

from tests.fingerprints import sampling_fewer


@pytest.fixture
def quick_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases are worked on in threads of this process, since every process would import torch anew."""
    threads = SimpleNamespace(get_context=lambda method: multiprocessing.dummy)
    monkeypatch.setattr(default_preprocessor, "multiprocessing", threads)
    monkeypatch.setattr(fingerprint_extractor, "multiprocessing", threads)
    extractor = fingerprint_extractor.DatasetFingerprintExtractor
    monkeypatch.setattr(extractor, "__init__", sampling_fewer(extractor.__init__))
