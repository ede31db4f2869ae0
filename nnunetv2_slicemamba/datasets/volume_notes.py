"""Notes on one's own volumes: what was changed or taken for granted, and what their intensities look like."""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.datasets.examined import ExaminedPair
from nnunetv2_slicemamba.datasets.volume_pairs import ExaminedVolume

# air in Hounsfield units is -1000
AIR = -500


def volume_notes(examined: Sequence[ExaminedPair], named: bool) -> tuple[str, ...]:
    """Notes for the user. named: the user named the channels, by which nnU-Net chooses the normalisation."""
    volumes = [one for one in examined if isinstance(one, ExaminedVolume)]
    moved, shifted = sum(one.moved for one in volumes), sum(one.shifted for one in volumes)
    rewritten = sum(one.new_labels for one in volumes)
    stacks = [one for one in volumes if one.stack]
    unsized, movies = sum(not one.voxel for one in stacks), sum(one.movie for one in stacks)
    notes = {
        f"{count(moved, 'mask')} with another origin than the image: the image's is written": moved,
        f"{count(shifted, 'case')} whose channels begin at different places: taken voxel by voxel": shifted,
        f"{count(rewritten, 'mask')} written anew (format, number type, values or grid), the others copied": rewritten,
        f"{count(unsized, 'stack')} without a size of voxels, 1x1x1 is written; "
        'CASE.json beside the image sets it: {"spacing": [z, y, x]}': unsized,
        f"{count(movies, 'stack')} whose pages are times: taken for slices": movies,
        "intensities look like CT; with --channels CT nnU-Net normalises them as such": (
            not named and all(one.lowest < AIR for one in volumes)
        ),
    }
    return tuple(note for note, holds in notes.items() if holds)
