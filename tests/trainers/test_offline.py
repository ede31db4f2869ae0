"""A preprocessed case that cannot be read is named, with what makes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.trainers.offline import load_cases, make_trainer, quiet


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def lose(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("spoil", [cut, empty, lose])
@pytest.mark.parametrize("ending", [".pkl", ".b2nd", "_seg.b2nd"])
def test_a_damaged_case_is_named_with_the_remedy(spoil: Callable[[Path], None], ending: str, workspace: Path) -> None:
    selection = select("901", "2d", "0", "nnUNetSliceMambaSPlans")
    with quiet():
        trainer = make_trainer(FoldFolder(selection, "SliceMambaSupernetTrainer"), torch.device("cpu"))
        trainer.do_split()
    assert [case.name for case in load_cases(trainer, ["case_0", "case_1"])] == ["case_0", "case_1"]
    file = selection.preprocessed_folder / "nnUNetPlans_2d" / f"case_1{ending}"
    spoil(file)
    with pytest.raises(InputError, match=rf"{file}.*the preprocessed case 'case_1' is damaged\. 'slicemamba plan'"):
        load_cases(trainer, ["case_0", "case_1"])


def test_values_that_were_changed_on_disk_are_named_too(workspace: Path) -> None:
    selection = select("901", "2d", "0", "nnUNetSliceMambaSPlans")
    with quiet():
        trainer = make_trainer(FoldFolder(selection, "SliceMambaSupernetTrainer"), torch.device("cpu"))
        trainer.do_split()
    file = selection.preprocessed_folder / "nnUNetPlans_2d" / "case_1.b2nd"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 - 200 : len(content) // 2 + 200] = bytes(400)
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"'case_1' in .* cannot be read .*Delete its files there, case_1\.\*"):
        load_cases(trainer, ["case_1"])
