"""CVC-ClinicDB: polyps in the frames of 29 colonoscopy videos."""

from __future__ import annotations

from nnunetv2_slicemamba.common.names import is_number
from nnunetv2_slicemamba.datasets.image_converter import Videos
from nnunetv2_slicemamba.datasets.layouts import flat, parts
from nnunetv2_slicemamba.datasets.pairing import Pair
from nnunetv2_slicemamba.datasets.polyp_benchmark import PolypConverter, joint, names_in

# The 62 frames on which the polyp benchmark tests, and the SliceMamba paper reports. Read from the file names of the
# benchmark's prediction maps: repository DengPingFan/PraNet, folder results/PraNet/CVC-ClinicDB, commit e28cb55.
# Training takes the remaining 550 frames together with Kvasir's 900 images (same repository, issues 41 and 52).
TEST = names_in(
    """
    14 21 25 31 42 50 52 61 65 66 73 80 89 100 106 119 134 148 154 163 166 171 179 181 185 191 205 240 251 266 279
    287 300 307 349 353 374 381 388 397 400 404 425 429 431 442 453 459 464 474 481 483 492 526 529 545 555 559 561
    569 571 575
    """
)

# First and last frame of the 29 videos. Read from the list of ranges in repository dataset-ninja/cvc-612,
# src/convert.py, commit e641d7c; a second public converter has the same ranges. Neither says which videos show the
# same patient.
# fmt: off
VIDEOS = (
    (1, 25), (26, 50), (51, 67), (68, 78), (79, 103), (104, 126), (127, 151), (152, 177), (178, 199),
    (200, 205), (206, 227), (228, 252), (253, 277), (278, 297), (298, 317), (318, 342), (343, 363), (364, 383),
    (384, 408), (409, 428), (429, 447), (448, 466), (467, 478), (479, 503), (504, 528), (529, 546), (547, 571),
    (572, 591), (592, 612),
)
# fmt: on


def video_of_frame(frame: int) -> int:
    """Number, from 1, of the video that a frame belongs to; ValueError for no such frame."""
    for number, (first, last) in enumerate(VIDEOS, start=1):
        if first <= frame <= last:
            return number
    raise ValueError(f"CVC-ClinicDB has the frames 1 to {VIDEOS[-1][1]}, there is no frame {frame}")


def video_of(pair: Pair) -> int:
    """Number of the video that an image belongs to; ValueError if its name is no frame's."""
    if not is_number(pair.stem):
        raise ValueError(f"{pair.image} is not named by its frame number, so its sequence cannot be told")
    return video_of_frame(int(pair.stem))


CONVERTER = PolypConverter(
    key="clinicdb",
    name="ClinicDB",
    labels=("polyp",),
    layouts=(
        flat("{Original,Ground Truth} (official archive, tif or png)", train=612),
        joint(("cvc-clinicdb", "clinicdb", "cvc-612"), test=62),
        parts(),
    ),
    home="polyp.grand-challenge.org/CVCClinicDB",
    licence="not verified: see the challenge's page; treat as research use",
    reference="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, CMIG 2015",
    split="polyp benchmark: its 62 ClinicDB images are held out, drawn at random among frames of the same videos as "
    "the training images; --split by-sequence keeps the 29 videos apart",
    place=4,
    videos=Videos(video_of, "which sequences show the same patient is not public"),
    test=TEST,
    training=550,
    is_own=is_number,
)
