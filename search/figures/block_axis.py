"""The horizontal axis whose ticks are the network's blocks, with lines between the stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_slicemamba.search.figures.stages import Stage, block_names, stage_names
from nnunetv2_slicemamba.search.figures.style import MUTED, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLOCK_LABEL = "block, in network order (e: encoder, d: decoder; stage.block)"


def block_axis(axes: Axes, stages: Sequence[Stage], blocks: range | None = None, with_stages: bool = True) -> None:
    """Puts the blocks' names below and the stages' above.

    blocks: those to show, consecutive; None for all. Block number i, in network order, stands at i.
    """
    names = block_names(stages)
    blocks = range(len(names)) if blocks is None else blocks
    rotation = 90 if len(blocks) > 24 else 45
    axes.set_xticks(blocks, [names[i] for i in blocks], fontsize=6.5, rotation=rotation)
    axes.set_xticks(np.arange(blocks.start, blocks.stop + 1) - 0.5, minor=True)
    axes.set_xlim(blocks.start - 0.5, blocks.stop - 0.5)
    end = 0
    for name, number in stage_names(stages):
        own = range(max(end, blocks.start), min(end + number, blocks.stop))
        end += number
        if not own:
            continue
        kind, stage = name.split()
        label = name if len(own) > 2 else f"{kind[:3]}. {stage}" if len(own) > 1 else f"{kind[0]}. {stage}"
        if with_stages:
            place: Any = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text((own.start + own.stop - 1) / 2, 1.03, label, fontsize=6.5, color=MUTED, **place)
        if end < blocks.stop:
            axes.axvline(end - 0.5, color=RULE, lw=0.7, zorder=0.5)
