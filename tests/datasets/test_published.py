"""The tables of published facts agree with the numbers that the publications give."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.datasets.converters import clinicdb, kvasir, synapse
from nnunetv2_slicemamba.datasets.registry import all_converters


def test_the_polyp_benchmark_tests_on_100_and_62_images() -> None:
    assert len(kvasir.TEST) == 100
    assert len(clinicdb.TEST) == 62
    assert all(1 <= int(frame) <= 612 for frame in clinicdb.TEST)


def test_the_29_sequences_of_clinicdb_cover_612_frames_once() -> None:
    frames = [frame for first, last in clinicdb.VIDEOS for frame in range(first, last + 1)]
    assert len(clinicdb.VIDEOS) == 29
    assert frames == list(range(1, 613))
    assert (clinicdb.video_of_frame(1), clinicdb.video_of_frame(26), clinicdb.video_of_frame(612)) == (1, 2, 29)
    with pytest.raises(ValueError, match="there is no frame 613"):
        clinicdb.video_of_frame(613)


def test_synapse_has_18_training_cases_of_2211_slices_and_12_test_cases() -> None:
    assert len(synapse.SLICES) == 18
    assert sum(synapse.SLICES.values()) == 2211
    assert len(synapse.TEST) == 12
    # BTCV's 30 labelled scans are numbered 1 to 10 and 21 to 40
    assert set(synapse.SLICES) | synapse.TEST == {*range(1, 11), *range(21, 41)}


def test_the_eight_organs_keep_their_names_when_renumbered() -> None:
    names = {number: name for name, number in synapse.BTCV_LABELS.items()}
    assert {names[old]: new for old, new in synapse.TO_EIGHT_ORGANS.items()} == synapse.ORGAN_LABELS


def test_every_dataset_states_terms_and_split() -> None:
    for converter in all_converters():
        assert converter.licence, converter.key
        assert converter.split, converter.key
        assert converter.layouts, converter.key
