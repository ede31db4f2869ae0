"""One thing is one, wherever numbers of things are told."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.common.counts import all_of, count
from nnunetv2_slicemamba.comparison.arms import slicing_text
from nnunetv2_slicemamba.nets.unet import SliceMambaUNet
from nnunetv2_slicemamba.search.dry_run import CostEstimate
from nnunetv2_slicemamba.slicing.fixed import fixed_in_words
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn


@pytest.mark.parametrize(
    ("noun", "one", "several"),
    [("block", "1 block", "2 blocks"), ("class", "1 class", "2 classes"), ("epoch", "1 epoch", "2 epochs")],
)
def test_nouns_follow_their_numbers(noun: str, one: str, several: str) -> None:
    assert (count(1, noun), count(2, noun), count(0, noun)) == (one, several, several.replace("2", "0"))


def test_a_network_of_one_block_is_told_so() -> None:
    assert (all_of(1, "case"), all_of(2, "case")) == ("the one case", "both cases")
    assert (fixed_in_words(3, 1), fixed_in_words(2, 7)) == ("2x4x2 in the one block", "2x4 in all 7 blocks")
    assert (slicing_text([(2, 4)]), slicing_text([(2, 4)] * 2)) == ("2x4 in the one block", "2x4 in both blocks")
    assert slicing_text([(2, 4)] * 3) == "2x4 in all 3"
    network = SliceMambaUNet(1, 2, 2, [4, 8], [[2, 2], [2, 2]], [1, 1], [1, 1], d_state=2)
    with pytest.raises(ValueError, match="the slicing has 1 block, this network has 4"):
        network.set_slicing([(2, 4)])


def test_a_search_on_one_case_is_told_so() -> None:
    assert MeasuredOn("holdout", 1).in_words == "1 holdout case"
    assert MeasuredOn("validation", 3).in_words == "3 validation cases"
    assert MeasuredOn().in_words == "validation cases"
    lines = CostEstimate(16, 0, (1.5,), 1, "validation", "study.db").lines(1, "SliceMambaTrainer_100epochs")
    assert lines[0] == "architectures:  16, each on 1 validation case"
    assert "mean of 1 path;" in lines[2]
    assert "at most 1 training by SliceMambaTrainer_100epochs" in lines[-1]
