"""UWF-RHS: retinal hemorrhages in ultra-wide field images of the fundus."""

from __future__ import annotations

from nnunetv2_slicemamba.datasets.image_converter import ImageConverter
from nnunetv2_slicemamba.datasets.layouts import flat, parts

CONVERTER = ImageConverter(
    key="uwf-rhs",
    name="UWFRHS",
    labels=("hemorrhage",),
    layouts=(flat("{images,masks}"), parts("{train,val,test}/{images,masks}")),
    home="github.com/wurenkai/UWF-RHS-Dataset-and-MASNet, on request",
    licence="academic use only, not to be passed on (the authors' request form)",
    reference="Wu et al., Automatic segmentation of hemorrhages in the ultra-wide field retina, JBHI 2024",
    split="no public list of the publication's split: folders train, val and test are taken as they are",
    place=5,
)
