"""One's own images and masks, pictures or volumes, in folders that the command names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from rich.console import Console

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.nnunet_files import UNSTATED
from nnunetv2_slicemamba.datasets.cases import Case
from nnunetv2_slicemamba.datasets.examined import ExaminedPair
from nnunetv2_slicemamba.datasets.image_converter import Form, ImageConverter
from nnunetv2_slicemamba.datasets.layouts import FolderLayout
from nnunetv2_slicemamba.datasets.own_folders import find_own
from nnunetv2_slicemamba.datasets.pairing import FoundPairs
from nnunetv2_slicemamba.datasets.request import Request


class FoldersConverter(ImageConverter):
    """The converter of one's own folders, whose labels and channels the user may name."""

    two_folders: ClassVar[bool] = True
    # a volume takes a few hundred MB while it is worked on
    files_at_once: ClassVar[int] = 4

    def find(self, request: Request) -> FoundPairs:
        found = find_own(request)
        if found.reader and request.resize is not None:
            raise ValueError("--resize is for pictures; nnU-Net resamples volumes by their spacing")
        return found

    def examine(
        self, found: FoundPairs, n_labels: int, processes: int, console: Console | None
    ) -> Sequence[ExaminedPair]:
        if not found.reader:
            return super().examine(found, n_labels, processes, console)
        from nnunetv2_slicemamba.datasets.volume_pairs import examine_volumes

        return examine_volumes(found.pairs, found.reader, n_labels, processes, console)

    def form(self, request: Request, found: FoundPairs, examined: Sequence[ExaminedPair]) -> Form:
        files = len(found.pairs[0].images)
        unnamed = ("image",) if files == 1 else tuple(f"channel_{number}" for number in range(files))
        if found.reader:
            from nnunetv2_slicemamba.datasets.volume_files import written_ending
            from nnunetv2_slicemamba.datasets.volume_notes import volume_notes

            ending = written_ending(found.pairs[0].image)
            notes = volume_notes(examined, bool(request.channels))
            return Form("volume", channel_names(request, unnamed), False, ending, found.reader, notes)
        grey = all(one.grey for one in examined)
        if files == 1:
            unnamed = ("grey",) if grey else ("R", "G", "B")
        return Form("image", channel_names(request, unnamed), grey)

    def case(self, one: ExaminedPair, name: str, subset: str, form: Form) -> Case:
        case = super().case(one, name, subset, form)
        if form.ending is None:
            return case
        from nnunetv2_slicemamba.datasets.volume_pairs import ExaminedVolume

        assert isinstance(one, ExaminedVolume)
        return replace(case, ending=form.ending, new_labels=one.new_labels, voxel=one.voxel)


def channel_names(request: Request, unnamed: Sequence[str]) -> dict[str, str]:
    """dataset.json's channel_names. unnamed: those where the user names none. ValueError for another number."""
    names = request.channels or unnamed
    if len(names) != len(unnamed):
        raise ValueError(
            f"--channels {','.join(names)} names {count(len(names), 'channel')}; the images have {len(unnamed)}"
        )
    return {str(number): name for number, name in enumerate(names)}


CONVERTER = FoldersConverter(
    key="folders",
    name="Own",
    labels=("foreground",),
    layouts=(
        # nothing to recognise: the command names the folders
        FolderLayout(
            "folders",
            "--images DIR --masks DIR: your own pairs with equal names, pictures or volumes (.nii.gz, .nrrd, .mha, "
            ".tif stacks)",
            read=lambda folder: None,
        ),
    ),
    home="",
    licence=UNSTATED,
    reference="",
    split="none: nnU-Net's five random folds; random:SEED, holdout:SHARE:SEED, or --test-images DIR",
    place=1000,
)
