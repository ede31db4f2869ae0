"""Names that plans can have."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import check_plans_name
from nnunetv2_slicemamba.planning.sizes import SIZES, plans_name_of


@pytest.mark.parametrize("name", [*map(plans_name_of, SIZES), "nnUNetPlans", "My Plans-2.1", "Pläne", "a_b"])
def test_usual_names_are_taken(name: str) -> None:
    check_plans_name(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *((name, "not begin with '.'") for name in ("..", ".", "", ".x", "-p", "a/b", "a\\b", "a\nb", "a\x1bb")),
        *((name, "splits the names of its result folders") for name in ("a__b", "_a", "a_")),
        *((name, "nnU-Net keeps other things") for name in ("dataset", "dataset_fingerprint", "splits_final")),
    ],
)
def test_names_that_lead_elsewhere_are_refused_with_the_rule(name: str, rule: str) -> None:
    with pytest.raises(InputError) as refused:
        check_plans_name(name)
    assert repr(name) in str(refused.value)
    assert rule in str(refused.value)
    assert "e.g. nnUNetSliceMambaPlans" in str(refused.value)
