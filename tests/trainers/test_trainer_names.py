"""A trainer that does not exist is refused with close names and the families of trainers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.trainers.found import trainer_class
from nnunetv2_slicemamba.trainers.roles import (
    ROLES,
    require_final_trainer,
    require_supernet_trainer,
    require_trainer_from_scratch,
)

ENDINGS = "NoDeepSupervision, _1epoch, _demo, _demo3d or _Nepochs (N: 5, 10, 20, 50, 100, 250, 500)"


@pytest.mark.parametrize(
    ("require", "name", "close", "remedy"),
    [
        (
            require_supernet_trainer,
            "SliceMambaSupernetTrainer_demo4d",
            "SliceMambaSupernetTrainer_demo3d, ",
            "give -tr SliceMambaSupernetTrainer or SliceMambaSharedSupernetTrainer, as it is or with the ending ",
        ),
        (
            lambda name: require_final_trainer(name, "--final-trainer"),
            "SliceMambaTrainer_100epoch",
            "SliceMambaTrainer_100epochs, ",
            "give --final-trainer SliceMambaTrainer or SliceMambaInheritTrainer, as it is or with the ending ",
        ),
        (
            require_trainer_from_scratch,
            "SliceMambaTrainer_5epoch",
            "SliceMambaTrainer_5epochs, ",
            "give --trainer SliceMambaTrainer, as it is or with the ending ",
        ),
        (
            trainer_class,
            "nnUNetTrainer_100epoch",
            "nnUNetTrainer_100epochs, ",
            "; or one of nnU-Net's such as nnUNetTrainer; or one from a folder in nnUNet_extTrainer, which is ",
        ),
    ],
)
def test_an_unknown_trainer_is_refused_with_close_names_and_families(
    require: Callable[[str], object], name: str, close: str, remedy: str
) -> None:
    with pytest.raises(InputError) as refused:
        require(name)
    told = str(refused.value)
    assert f"{name!r}" in told
    assert f"(did you mean {close}" in told
    assert remedy in told
    assert ENDINGS in told
    assert sum(one in told.split() for one in ROLES) < 8, "not every variant is listed"


def test_a_name_that_is_near_to_none_is_no_guess() -> None:
    with pytest.raises(InputError, match=r"^'Foo' is no supernet trainer; give -tr SliceMambaSupernetTrainer or"):
        require_supernet_trainer("Foo")
