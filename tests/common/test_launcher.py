"""What a launcher should have set and did not is named, and not taken for a bug."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pretraining.processes import processes
from nnunetv2_slicemamba.search.workers.processes import Process

WHOLE = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize("value", ["", "x", "-1", "2.0", "nan", "\N{SUPERSCRIPT TWO}", "9" * 30])
@pytest.mark.parametrize("name", WHOLE)
def test_a_place_among_processes_that_is_none_is_named(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{name} is {value!r}.*must be a whole number from .*torchrun"):
        Process.from_environment({**WHOLE, name: value})


def test_a_rank_that_is_missing_or_beyond_the_others_is_named() -> None:
    with pytest.raises(InputError, match="RANK is not set, where WORLD_SIZE=2 announces"):
        Process.from_environment({"WORLD_SIZE": "2"})
    with pytest.raises(InputError, match="RANK is '2'.*below 2"):
        Process.from_environment({**WHOLE, "RANK": "2"})
    assert Process.from_environment({"WORLD_SIZE": "1", "RANK": "x"}) == Process()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "x"}, "LOCAL_WORLD_SIZE is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cannot meet .*MASTER_ADDR.*start all of them with torchrun"),
    ],
)
def test_a_pretraining_names_them_too(environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words), processes("cpu"):
        pass
