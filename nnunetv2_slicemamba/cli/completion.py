"""Names that a shell completes behind an option: of data sets, plans, configurations and trainers that are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nnunetv2_slicemamba.common.dataset_names import datasets_in
from nnunetv2_slicemamba.trainers.roles import FINAL, INHERIT, SUPERNET, trainers_with


def _folders(*variables: str) -> Iterator[Path]:
    for variable in variables:
        folder = Path(os.environ.get(variable, ""))
        if os.environ.get(variable) and folder.is_dir():
            yield folder


def datasets() -> set[str]:
    """Names of the datasets in nnU-Net's folders."""
    return {name for folder in _folders("nnUNet_raw", "nnUNet_preprocessed") for name in datasets_in(folder)}


def plans() -> set[str]:
    """Names of all plans of ours."""
    return {
        file.stem
        for folder in _folders("nnUNet_preprocessed")
        for file in folder.glob("Dataset*/nnUNetSliceMamba*Plans.json")
    }


def configurations() -> tuple[str, ...]:
    """nnU-Net's configurations."""
    return "2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"


def final_trainers() -> list[str]:
    """Names of the trainers of a chosen network."""
    return trainers_with(FINAL, INHERIT)


def supernet_trainers() -> list[str]:
    """Names of the trainers of supernets."""
    return trainers_with(SUPERNET)


def completing(names: Callable[[], Iterable[str]] | Iterable[str]) -> Callable[[str], list[str]]:
    """A function that typer calls with the beginning of a word: the names that begin with it."""

    def complete(incomplete: str) -> list[str]:
        return sorted(name for name in (names() if callable(names) else names) if name.startswith(incomplete))

    return complete
