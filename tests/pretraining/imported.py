"""Importing weights into a network and comparing what it computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nnunetv2_slicemamba.pretraining.importing import Adaptations, Imported, import_weights
from nnunetv2_slicemamba.pretraining.naming import identify

DEEP = {"strides": [[2, 4, 4], [2, 2, 2]]}


def imported_into(network: Any, weights: dict[str, Any], kind: Any = None, **adaptations: Any) -> Imported:
    result = import_weights(identify(weights, kind), network, Adaptations(**adaptations))
    network.load_state_dict(result.state_dict)
    return result


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())
