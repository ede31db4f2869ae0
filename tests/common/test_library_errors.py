"""Errors of a library are told with the remedy; this package's own, and bugs in it, are not taken for them."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import NoReturn

import pytest
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_slicemamba.common.durations import duration_text
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.library_errors import library_errors
from nnunetv2_slicemamba.search.settings import SearchSettings


def told(library: str, cause: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error, library_errors(library, "nnU-Net cannot plan X", "check the files"):
        cause()
    assert error.value.__cause__ is not None
    return str(error.value)


def test_a_librarys_error_becomes_one_with_reason_and_remedy() -> None:
    manager = PlansManager({"plans_name": "x", "configurations": {}})
    assert told("nnunetv2", lambda: manager.dataset_name) == (
        "nnU-Net cannot plan X (KeyError: 'dataset_name'); check the files"
    )
    assert told("nnunetv2", lambda: convert_dataset_name_to_id("nothing")).startswith(
        "nnU-Net cannot plan X (AssertionError: "
    )
    message = told("json", lambda: json.loads("{"))
    assert message.startswith("nnU-Net cannot plan X (JSONDecodeError: Expecting property name")


def raising(error: Exception) -> Callable[[object], NoReturn]:
    def cause(_: object) -> NoReturn:
        raise error

    return cause


def test_refusals_and_bugs_of_this_package_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match="population is 0") as error, library_errors("json", "x", "y"):
        json.loads("0", parse_int=lambda text: SearchSettings(population=int(text)))
    assert not isinstance(error.value, InputError)
    # a bug: words where a number is meant
    with pytest.raises(TypeError), library_errors("json", "x", "y"):
        json.loads("0", parse_int=duration_text)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError("128 TiB")])
def test_what_the_system_refuses_keeps_its_name(error: Exception) -> None:
    with pytest.raises(type(error)) as passed, library_errors("json", "x", "y"):
        json.loads("0", parse_int=raising(error))
    assert passed.value is error
