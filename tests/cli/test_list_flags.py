"""nnU-Net's way of listing values, -f 0 1, where a command takes several, and nowhere else."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.cli import main
from nnunetv2_slicemamba.cli.main import expand_lists


@pytest.mark.parametrize("command", ["search", "holdout", "compare", "rank"])
def test_a_second_fold_is_refused_where_one_is_taken(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "-d", "901", "-c", "2d", "-f", "0", "1"])
    assert stopped.value.code == 2
    assert "(1)" in capsys.readouterr().err


def test_values_are_listed_where_several_are_taken() -> None:
    assert expand_lists(["run", "-c", "2d", "-f", "0", "1", "--size", "S"]) == [
        *("run", "-c", "2d", "-f", "0", "-f", "1", "--size", "S")
    ]
    assert expand_lists(["plan", "-c", "2d", "3d_fullres"]) == ["plan", "-c", "2d", "-c", "3d_fullres"]


def test_an_argument_behind_a_single_value_stays_an_argument() -> None:
    given = ["import", "-d", "901", "-c", "2d", "-f", "0", "checkpoint.pth"]
    assert expand_lists(given) == given
    assert expand_lists([]) == []
