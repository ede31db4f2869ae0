"""Hashes tell one checkpoint, and one plan's meaning, from another."""

import copy
import hashlib
import json
from typing import Any

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.common.hashing import resolved_configuration
from nnunetv2_slicemamba.search import sha256_of_file, sha256_of_plans

PLANS = {
    "dataset_name": "Dataset999_Test",
    "plans_name": "nnUNetSliceMambaSPlans",
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "2d": {
            "batch_size": 12,
            "batch_dice": True,
            "patch_size": [64, 64],
            "architecture": {"arch_kwargs": {"strides": [[4, 4], [2, 2]]}},
        },
        "2d_large": {"inherits_from": "2d", "patch_size": [128, 128]},
        "3d_fullres": {"patch_size": [32, 32, 32]},
        "a": {"inherits_from": "b"},
        "b": {"inherits_from": "a"},
    },
}


def changed(*path, to):
    plans = copy.deepcopy(PLANS)
    inner: Any = plans
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return plans


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "f").write_bytes(content)
    assert sha256_of_file(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_writing_the_plans_again_does_not_change_their_hash():
    again = json.loads(json.dumps(dict(reversed(PLANS.items())), indent=4))
    assert sha256_of_plans(again, "2d") == sha256_of_plans(PLANS, "2d")


@pytest.mark.parametrize(
    "plans",
    [
        changed("configurations", "3d_fullres", to={"patch_size": [8, 8, 8]}),
        changed("configurations", "new", to={"patch_size": [8, 8, 8]}),
        changed("configurations", "2d", "batch_size", to=2),
        changed("configurations", "2d", "batch_dice", to=False),
        changed("continue_training", to=True),
    ],
)
def test_what_does_not_concern_the_network_does_not_change_the_hash(plans):
    assert sha256_of_plans(plans, "2d") == sha256_of_plans(PLANS, "2d")


@pytest.mark.parametrize(
    "plans",
    [
        changed("configurations", "2d", "patch_size", to=[64, 128]),
        changed("configurations", "2d", "architecture", "arch_kwargs", "strides", to=[[4, 4], [4, 4]]),
        changed("configurations", "2d", "new_setting", to=1),
        changed("plans_name", to="Other"),
        changed("transpose_forward", to=[1, 0, 2]),
    ],
)
def test_what_concerns_the_network_changes_the_hash(plans):
    assert sha256_of_plans(plans, "2d") != sha256_of_plans(PLANS, "2d")


def test_inheritance_is_resolved_as_nnunet_does():
    ours = resolved_configuration(PLANS["configurations"], "2d_large")
    theirs = PlansManager(copy.deepcopy(PLANS))._internal_resolve_configuration_inheritance("2d_large")
    assert ours == {key: value for key, value in theirs.items() if key != "inherits_from"}
    parent = changed("configurations", "2d", "architecture", to={})
    assert sha256_of_plans(parent, "2d_large") != sha256_of_plans(PLANS, "2d_large")


def test_a_configuration_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="the plans have no configuration '3d_lowres', they have 2d, 2d_large"):
        sha256_of_plans(PLANS, "3d_lowres")
    with pytest.raises(ValueError, match="inherit in a circle: a <- b <- a"):
        sha256_of_plans(PLANS, "a")
