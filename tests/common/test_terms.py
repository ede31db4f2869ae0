"""Terms of use that nobody stated are told in the same plain words everywhere."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.common.nnunet_files import UNSTATED, terms_of
from nnunetv2_slicemamba.datasets.registry import converter_of


@pytest.mark.parametrize("description", [{}, {"licence": ""}, {"licence": "one's own"}, {"licence": UNSTATED}])
def test_terms_that_nobody_stated_are_not_stated(description: dict[str, str]) -> None:
    assert terms_of(description) == "not stated"


def test_stated_terms_are_told_as_they_are() -> None:
    assert terms_of({"license": "CC0"}) == "CC0"
    assert converter_of("folders").licence == UNSTATED
