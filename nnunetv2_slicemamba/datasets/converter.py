"""What is known of each public dataset: folders, labels, terms, where to get it, and its publications' splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset that `slicemamba convert` knows.

    name: what follows DatasetXXX_. layouts: folder layouts in words. split: what --split published does. counts:
    images per layout and part where they are known, to recognise incomplete downloads.
    """

    key: str
    name: str
    labels: Mapping[str, int]
    layouts: tuple[str, ...]
    home: str
    licence: str
    reference: str
    split: str
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


PARTS = "{train,val}/{images,masks}, with or without search/ and test/ (VM-UNet's shared folders)"
JOINT = "TrainDataset, TestDataset/{Kvasir,CVC-ClinicDB,...}, searchDataset (polyp benchmark)"
JOINT_COUNTS = {"train": 1450}

CATALOGUE: Mapping[str, DatasetFacts] = MappingProxyType(
    {
        facts.key: facts
        for facts in (
            DatasetFacts(
                key="isic2017",
                name="ISIC2017",
                labels={"background": 0, "lesion": 1},
                layouts=(
                    "ISIC-2017_{Training,Validation,Test_v2}_Data and ..._Part1_GroundTruth (official archives)",
                    PARTS,
                ),
                home="challenge.isic-archive.com, ISIC 2017",
                # the challenge's own page could not be consulted; images shared with ISIC 2016 are listed as CC0 there
                licence="not verified: see the challenge's page; treat as research use",
                reference="Codella et al., Skin lesion analysis toward melanoma detection, arXiv:1710.05006",
                split="official archives: Training trains, Validation validates, Test is held out; "
                "shared folders: as they are (the list behind their 7:3 split is not public)",
                # VM-UNet's 7:3 division and the official numbers of images
                counts={
                    "official": {"train": 2000, "val": 150, "test": 600},
                    "parts": {"train": 1500, "val": 650},
                },
            ),
            DatasetFacts(
                key="isic2018",
                name="ISIC2018",
                labels={"background": 0, "lesion": 1},
                layouts=(
                    "ISIC2018_Task1-2_{Training,Validation,Test}_Input and ISIC2018_Task1_..._GroundTruth "
                    "(official archives)",
                    PARTS,
                ),
                home="challenge.isic-archive.com, ISIC 2018, task 1",
                # datasetninja.com/isic-challenge-2018
                licence="CC BY-NC 4.0",
                reference="Codella et al., Skin lesion analysis toward melanoma detection 2018, arXiv:1902.03368; "
                "Tschandl et al., The HAM10000 dataset, Scientific Data 2018",
                split="official archives: Training trains, Validation validates, Test is held out; "
                "shared folders: as they are (the list behind their 7:3 split is not public)",
                counts={
                    "official": {"train": 2594, "val": 100, "test": 1000},
                    "parts": {"train": 1886, "val": 808},
                },
            ),
            DatasetFacts(
                key="kvasir",
                name="Kvasir",
                labels={"background": 0, "polyp": 1},
                layouts=("{images,masks} (official archive)", JOINT, PARTS),
                home="datasets.simula.no/kvasir-seg",
                licence="research and education only; commercial use needs written permission",
                reference="Jha et al., Kvasir-SEG: a segmented polyp dataset, MMM 2020",
                split="polyp benchmark: its 100 Kvasir images are held out",
                counts={"flat": {"train": 1000}, "joint": {**JOINT_COUNTS, "test": 100}},
            ),
            DatasetFacts(
                key="clinicdb",
                name="ClinicDB",
                labels={"background": 0, "polyp": 1},
                layouts=("{Original,Ground Truth} (official archive, tif or png)", JOINT, PARTS),
                home="polyp.grand-challenge.org/CVCClinicDB",
                licence="not verified: see the challenge's page; treat as research use",
                reference="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, CMIG 2015",
                split="polyp benchmark: its 62 ClinicDB images are held out, drawn at random among frames of the "
                "same videos as the training images; --split by-sequence keeps the 29 videos apart",
                counts={"flat": {"train": 612}, "joint": {**JOINT_COUNTS, "test": 62}},
            ),
            DatasetFacts(
                key="uwf-rhs",
                name="UWFRHS",
                labels={"background": 0, "hemorrhage": 1},
                layouts=("{images,masks}", "{train,val,test}/{images,masks}"),
                home="github.com/wurenkai/UWF-RHS-Dataset-and-MASNet, on request",
                licence="academic use only, not to be passed on (the authors' request form)",
                reference="Wu et al., Automatic segmentation of hemorrhages in the ultra-wide field retina, JBHI 2024",
                split="no public list of the publication's split: folders train, val and test are taken as they are",
            ),
            DatasetFacts(
                key="synapse",
                name="Synapse",
                labels={},
                layouts=(
                    "img0001.nii.gz and label0001.nii.gz in any folders (BTCV, RawData/Training/{img,label})",
                    "train_npz/case0005_slice000.npz, test_vol_h5/case0001.npy.h5, lists/ (TransUNet's preprocessed)",
                ),
                home="synapse.org, syn3193805",
                licence="by registration at Synapse; TransUNet's preprocessed files: research only, not to share",
                reference="Landman et al., Multi-atlas labeling beyond the cranial vault, MICCAI 2015; "
                "Chen et al., TransUNet, arXiv:2102.04306",
                split="TransUNet's 12 test cases are held out, 18 train",
                counts={"nifti": {"train": 18, "test": 12}, "preprocessed": {"train": 18, "test": 12}},
            ),
            DatasetFacts(
                key="folders",
                name="Own",
                labels={"background": 0, "foreground": 1},
                layouts=("--images DIR --masks DIR: one's own pairs with equal names",),
                home="",
                licence="one's own",
                reference="",
                split="none: nnU-Net's five random folds, or random:SEED",
            ),
        )
    }
)
