"""One's own images and masks, in two folders that the command names."""

from __future__ import annotations

from typing import ClassVar

from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.layouts import FolderLayout, collect
from nnunetv2_slicemamba.datasets.pairing import TRAIN, FolderPair, FoundPairs
from nnunetv2_slicemamba.datasets.request import Request


class FoldersConverter(ImageConverter):
    """The converter of two folders, whose labels the user may name."""

    two_folders: ClassVar[bool] = True
    keeps_grey: ClassVar[bool] = True

    def find(self, request: Request) -> FoundPairs:
        images, masks = request.sources
        return collect("folders", [FolderPair(TRAIN, images, masks)])


CONVERTER = FoldersConverter(
    key="folders",
    name="Own",
    labels=("foreground",),
    layouts=(
        # nothing to recognise: the command names both folders
        FolderLayout("folders", "--images DIR --masks DIR: one's own pairs with equal names", read=lambda folder: None),
    ),
    home="",
    licence="one's own",
    reference="",
    split="none: nnU-Net's five random folds, or random:SEED",
    place=1000,
)
