"""A network's settings: the constructors' arguments in one frozen object, which refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.nets.settings import NetworkSettings

Settings = Callable[..., dict[str, Any]]
SHAPE = (2, 3, 2, [8, 16], [[4, 4], [2, 2]], [1, 1], [1, 2])
OPTIONS = {
    "activation_checkpointing": True,
    "stem_features": [4, 6],
    "n_conv_per_stem_stage": 1,
    "skip": "concatenate",
}


def test_arguments_of_a_network_have_their_documented_positions() -> None:
    slicing = [(2, 4)] * 5
    network = SliceMambaUNet(*SHAPE, 4, 1, 0.1, slicing, True, **OPTIONS)
    by_name = dict(d_state=4, expand=1, drop_path_rate=0.1, deep_supervision=True, **OPTIONS)
    assert network.settings == NetworkSettings.from_arguments(*SHAPE, **by_name)
    assert network.get_slicing() == tuple(slicing)
    supernet = SliceMambaSupernet(*SHAPE, 4, 1, 0.1, [(1, 1), (2, 2)], True, True, **OPTIONS)
    assert supernet.settings == dataclasses.replace(network.settings, candidates=((1, 1), (2, 2)))
    assert supernet.candidates == ((1, 1), (2, 2))
    assert supernet.share_weights


def test_plans_give_every_setting_by_name_and_get_it_back(settings: Settings) -> None:
    arguments = settings(**OPTIONS, candidates=[(1, 1), (8, 3)])
    settled = NetworkSettings.from_arguments(**json.loads(json.dumps(arguments)))
    assert settled == NetworkSettings.from_arguments(**settled.as_arguments())
    for name, value in json.loads(json.dumps(settled.as_arguments())).items():
        assert value == json.loads(json.dumps(arguments.get(name, value))), name


def test_settings_cannot_be_changed_and_can_be_compared(settings: Settings) -> None:
    one, other = (NetworkSettings.from_arguments(**settings()) for _ in range(2))
    assert len({one, other}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.d_state = 8  # type: ignore[misc]


def test_a_network_of_one_path_carries_its_plans_candidates_along(settings: Settings) -> None:
    candidates = [(2, 2), (8, 8)]
    supernet = SliceMambaSupernet(**settings(candidates=candidates))
    extracted = supernet.extract([1] * supernet.n_blocks)
    assert extracted.settings == supernet.settings
    assert SliceMambaUNet(**settings(candidates=candidates)).settings == supernet.settings


def test_an_argument_that_is_unknown_is_refused(settings: Settings) -> None:
    with pytest.raises(TypeError, match="patch_norm"):
        SliceMambaUNet(**settings(patch_norm=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, r"input_channels and num_classes \[2, 0\] must all be at least 1: "),
        ({"expand": 0}, r"d_state and expand \[4, 0\] must all be at least 1: "),
        ({"features_per_stage": [0, 8, 8]}, r"features_per_stage \[0, 8, 8\] must all be at least 1: "),
        ({"features_per_stage": [10, 20, 40]}, "multiple of 4: give 8"),
        ({"drop_path_rate": 1.5}, "drop_path_rate is 1.5, a probability: give one from 0 to 1"),
        ({"candidates": [(2, 2), (2, 2)]}, "must be 1 to 256 different slicings: "),
        ({"candidates": [(2, 2, 2)]}, "has 3 entries for 2 spatial axes; give one"),
    ],
)
@pytest.mark.parametrize("kind", [SliceMambaUNet, SliceMambaSupernet])
def test_settings_out_of_range_are_refused_with_value_rule_and_remedy(
    kind: type[Any], changes: dict[str, Any], message: str, settings: Settings
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings(**changes))
