"""ISIC 2017: skin lesions in dermoscopy images."""

from __future__ import annotations

from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.layouts import archives, parts

CONVERTER = ImageConverter(
    key="isic2017",
    name="ISIC2017",
    labels=("lesion",),
    layouts=(
        archives(
            "ISIC-2017_{Training,Validation,Test_v2}_Data and ..._Part1_GroundTruth (official archives)",
            {
                "train": ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
                "val": ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
                "test": ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
            },
            train=2000,
            val=150,
            test=600,
        ),
        # VM-UNet's 7:3 division
        parts(train=1500, val=650),
    ),
    home="challenge.isic-archive.com, ISIC 2017",
    # the challenge's own page could not be consulted; images shared with ISIC 2016 are listed as CC0 there
    licence="not verified: see the challenge's page; treat as research use",
    reference="Codella et al., Skin lesion analysis toward melanoma detection, arXiv:1710.05006",
    split="official archives: Training trains, Validation validates, Test is held out; "
    "shared folders: as they are (the list behind their 7:3 split is not public)",
    place=1,
)
