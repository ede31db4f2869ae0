"""The tables of published facts agree with the numbers that the publications give."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.datasets.converter import CATALOGUE
from nnunetv2_slicemamba.datasets.published import (
    BTCV_LABELS,
    CLINICDB_SEQUENCES,
    CLINICDB_TEST,
    KVASIR_TEST,
    ORGAN_LABELS,
    SYNAPSE_SLICES,
    SYNAPSE_TEST,
    TO_EIGHT_ORGANS,
    clinicdb_sequence,
)


def test_the_polyp_benchmark_tests_on_100_and_62_images() -> None:
    assert len(KVASIR_TEST) == 100
    assert len(CLINICDB_TEST) == 62
    assert all(1 <= int(frame) <= 612 for frame in CLINICDB_TEST)


def test_the_29_sequences_of_clinicdb_cover_612_frames_once() -> None:
    frames = [frame for first, last in CLINICDB_SEQUENCES for frame in range(first, last + 1)]
    assert len(CLINICDB_SEQUENCES) == 29
    assert frames == list(range(1, 613))
    assert (clinicdb_sequence(1), clinicdb_sequence(26), clinicdb_sequence(612)) == (1, 2, 29)
    with pytest.raises(ValueError, match="there is no frame 613"):
        clinicdb_sequence(613)


def test_synapse_has_18_training_cases_of_2211_slices_and_12_test_cases() -> None:
    assert len(SYNAPSE_SLICES) == 18
    assert sum(SYNAPSE_SLICES.values()) == 2211
    assert len(SYNAPSE_TEST) == 12
    # BTCV's 30 labelled scans are numbered 1 to 10 and 21 to 40
    assert set(SYNAPSE_SLICES) | SYNAPSE_TEST == {*range(1, 11), *range(21, 41)}


def test_the_eight_organs_keep_their_names_when_renumbered() -> None:
    names = {number: name for name, number in BTCV_LABELS.items()}
    assert {names[old]: new for old, new in TO_EIGHT_ORGANS.items()} == ORGAN_LABELS


def test_every_dataset_states_terms_and_split() -> None:
    for facts in CATALOGUE.values():
        assert facts.licence, facts.key
        assert facts.split, facts.key
        assert facts.layouts, facts.key
