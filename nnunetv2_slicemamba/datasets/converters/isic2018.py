"""ISIC 2018: skin lesions in dermoscopy images, of the challenge's task 1."""

from __future__ import annotations

from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.layouts import archives, parts

CONVERTER = ImageConverter(
    key="isic2018",
    name="ISIC2018",
    labels=("lesion",),
    layouts=(
        archives(
            "ISIC2018_Task1-2_{Training,Validation,Test}_Input and ISIC2018_Task1_..._GroundTruth (official archives)",
            {
                "train": ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
                "val": ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
                "test": ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
            },
            train=2594,
            val=100,
            test=1000,
        ),
        # VM-UNet's 7:3 division
        parts(train=1886, val=808),
    ),
    home="challenge.isic-archive.com, ISIC 2018, task 1",
    # datasetninja.com/isic-challenge-2018
    licence="CC BY-NC 4.0",
    reference="Codella et al., Skin lesion analysis toward melanoma detection 2018, arXiv:1902.03368; "
    "Tschandl et al., The HAM10000 dataset, Scientific Data 2018",
    split="official archives: Training trains, Validation validates, Test is held out; "
    "shared folders: as they are (the list behind their 7:3 split is not public)",
    place=2,
)
