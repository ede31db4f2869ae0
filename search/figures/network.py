"""The slicing of every block, drawn on the U-shaped network; the report shows the same drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.search.figures.data import FigureData
from nnunetv2_slicemamba.search.figures.stages import Stage, block_names
from nnunetv2_slicemamba.search.figures.style import (
    INK,
    MUTED,
    RULE,
    TIMES,
    WIDTH,
    Colours,
    colours_of,
    shown,
    token_patch,
)
from nnunetv2_slicemamba.slicing.candidates import Slicing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# all lengths in inches
SIZE, GAP, GAP_3D = 0.25, 0.11, 0.17
EDGE, HEAD, BETWEEN = 0.1, 0.25, 0.16
ROW = SIZE + 0.17
ARROWS = 0.55  # between encoder and decoder
KEY_SIZE, KEY_ENTRY, KEY_ENTRY_WIDE, KEY_ROW = 0.17, 0.57, 0.77, 0.25
PER_ROW = 9  # blocks beside each other on the search's page


def draw_network(figure: Figure, data: FigureData) -> None:
    """The chosen slicing on the network."""
    axes = figure.subplots()
    width, height = draw_slicing(axes, data.slicing, data.stages, colours_of(data.candidates, [data.slicing]), PER_ROW)
    figure.set_size_inches(WIDTH, height * WIDTH / max(width, WIDTH * 0.7))
    axes.set_anchor("NW")  # a small network leaves room at the right


def draw_slicing(
    axes: Axes, slicing: Slicing, stages: Sequence[Stage], colours: Colours, per_row: int
) -> tuple[float, float]:
    """Draws the U-shape: encoder on the left from top to bottom, decoder on the right from bottom to top.

    slicing: (blocks, n) in network order. stages: highest resolution first. colours: of every candidate in the key.
    per_row: blocks beside each other on either side. Returns width and height of the drawing, the axes' data units, in
    inches. Raises ValueError if the numbers of blocks differ.
    """
    n_blocks = sum(stage.encoder_blocks + stage.decoder_blocks for stage in stages)
    if n_blocks != len(slicing):
        raise ValueError(f"the slicing has {len(slicing)} blocks, the network {n_blocks}")
    is_3d = len(stages[0].reduction) == 3
    step = SIZE + (GAP_3D if is_3d else GAP)
    # a 3D patch has a tab on its left
    left = EDGE + (0.06 if is_3d else 0)
    columns = [min(max(2, *blocks), per_row) for blocks in _sides(stages)]
    right = left + columns[0] * step + ARROWS
    width = right + columns[1] * step - (step - SIZE) + EDGE
    y, encoder_end, decoder_start = 0.02, 0, n_blocks
    for number, stage in enumerate(stages, 1):
        first = y + HEAD
        bottom = first + _rows(stage, columns) * ROW - 0.01
        _stage_box(axes, stage, number, y, width, bottom)
        encoder = slicing[encoder_end : encoder_end + stage.encoder_blocks]
        encoder_end += stage.encoder_blocks
        decoder_start -= stage.decoder_blocks
        decoder = slicing[decoder_start : decoder_start + stage.decoder_blocks]
        for x, blocks, n in ((left, encoder, columns[0]), (right, decoder, columns[1])):
            for j, candidate in enumerate(blocks):
                at_x, at_y = x + j % n * step, first + j // n * ROW
                token_patch(axes, at_x, at_y, SIZE, candidate, colours[candidate])
                label: Any = {"fontsize": 6, "color": MUTED, "ha": "center", "va": "top"}
                axes.text(at_x + SIZE / 2, at_y + SIZE + 0.02, shown(candidate), **label)
        is_last = number == len(stages)
        taken = left + min(len(encoder), columns[0]) * step
        _arrow(axes, taken, first + SIZE / 2, right - 0.1, first + SIZE / 2, dashed=not is_last)
        y = bottom
        if not is_last:
            y += BETWEEN
            _arrow(axes, left + SIZE / 2, bottom, left + SIZE / 2, y)
            _arrow(axes, right + SIZE / 2, y, right + SIZE / 2, bottom)
    height = _key(axes, slicing, colours, y + 0.12, width, is_3d)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return width, height


def _sides(stages: Sequence[Stage]) -> tuple[list[int], list[int]]:
    return [stage.encoder_blocks for stage in stages], [stage.decoder_blocks for stage in stages]


def _rows(stage: Stage, columns: Sequence[int]) -> int:
    """Rows of blocks in the stage's box, of its longer side."""
    return max(1, -(-stage.encoder_blocks // columns[0]), -(-stage.decoder_blocks // columns[1]))


def _stage_box(axes: Axes, stage: Stage, number: int, top: float, width: float, bottom: float) -> None:
    """The frame of a stage, with its number, width and resolution in its head."""
    from matplotlib.patches import FancyBboxPatch

    corner, pad = (0.06, top + 0.04), 0.04
    size = width - 0.12, bottom - top - 0.08
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=f"round,pad={pad}", fc="none", ec=RULE, lw=0.8))
    times = TIMES.join(map(str, stage.reduction))
    scale = f"1/{stage.reduction[0]}" if len(set(stage.reduction)) == 1 else f"1/({times})"
    y = top + HEAD / 2 + 0.01
    axes.text(EDGE, y, f"stage {number}", fontsize=7, weight="bold", color=INK, va="center")
    place: Any = {"ha": "right", "va": "center"}
    axes.text(width - EDGE, y, f"{stage.channels} channels at {scale}", fontsize=6, color=MUTED, **place)


def _arrow(axes: Axes, x1: float, y1: float, x2: float, y2: float, dashed: bool = False) -> None:
    style: Any = {
        "arrowstyle": "-|>,head_length=0.35,head_width=0.14",
        "color": MUTED,
        "lw": 0.7,
        "ls": (0, (3, 2)) if dashed else "-",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", (x2, y2), (x1, y1), arrowprops=style)


def _key(axes: Axes, slicing: Slicing, colours: Colours, y: float, width: float, is_3d: bool) -> float:
    """Draws every candidate with its number of blocks; returns the key's lower edge."""
    counts = Counter(slicing)
    wide = is_3d or any(isinstance(candidate, str) for candidate in colours)
    entry = KEY_ENTRY_WIDE if wide else KEY_ENTRY
    per_row = max(1, int((width - EDGE) / entry))
    for i, (candidate, colour) in enumerate(colours.items()):
        x, at_y = EDGE + i % per_row * entry + (0.04 if is_3d else 0), y + i // per_row * KEY_ROW
        token_patch(axes, x, at_y, KEY_SIZE, candidate, colour)
        text = f"{shown(candidate)}: {counts[candidate]}"
        axes.text(x + KEY_SIZE + 0.04, at_y + KEY_SIZE / 2, text, fontsize=6, color=INK, va="center")
    return y + -(-len(colours) // per_row) * KEY_ROW


def describe_slicing(slicing: Slicing, stages: Sequence[Stage]) -> str:
    """Every block's name and thickness, in network order, for those who cannot see the drawing."""
    return ", ".join(f"{name} {shown(one)}" for name, one in zip(block_names(stages), slicing, strict=True))


def describe_network(data: FigureData) -> str:
    """The figure in words."""
    return f"Thickness of the {data.n_blocks} blocks: {describe_slicing(data.slicing, data.stages)}."
