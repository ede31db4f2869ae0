"""What slicing was chosen for every block of the network?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunetv2_slicemamba.search.figures.data import FigureData, Stage
from nnunetv2_slicemamba.search.figures.style import MUTED, RULE, TIMES, WIDTH, colours_of, shown, token_patch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# inches, for the drawing is made in them
SIZE, GAP = 0.24, 0.11
ROW = SIZE + 0.19
PER_ROW = 9
HEAD, BETWEEN = 0.2, 0.17


def draw_network(figure: Figure, data: FigureData) -> None:
    """The U-shape: encoder on the left from top to bottom, decoder on the right from bottom to top."""
    widest = max(max(stage.encoder_blocks, stage.decoder_blocks) for stage in data.stages)
    per_row = max(min(widest, PER_ROW), 2)
    step = SIZE + GAP + (0.1 if len(data.candidates[0]) == 3 else 0.02)
    # the decoder rarely has as many blocks as the encoder's deepest stage
    side_left = per_row * step
    side_right = max(min(max(stage.decoder_blocks for stage in data.stages), PER_ROW), 2) * step
    left, middle = 0.78, 0.75
    right = left + side_left + middle
    width = right + side_right + 0.1
    tops, height = _rows(data.stages, per_row)
    key_height = 0.42
    figure.set_size_inches(WIDTH, (height + key_height + 0.54) * WIDTH / max(width, WIDTH * 0.8))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(0, width)
    axes.set_ylim(height + key_height, -0.24)
    colours = colours_of([*data.candidates, *data.slicing])
    slicing = list(data.slicing)
    encoder_end, decoder_start = 0, len(slicing)
    for i, (stage, top) in enumerate(zip(data.stages, tops, strict=True)):
        box_height = _box(stage, per_row)
        _stage_box(axes, 0.02, top, width - 0.04, box_height)
        times = TIMES.join(map(str, stage.reduction))
        head = f"1/{stage.reduction[0]}" if len(set(stage.reduction)) == 1 else f"1/({times})"
        y = top + 0.1
        axes.text(0.1, y + 0.1, f"stage {i + 1}", fontsize=7, weight="bold", va="center")
        axes.text(0.1, y + 0.24, f"{head}\n{stage.channels} ch.", fontsize=6, color=MUTED, va="top", linespacing=1.3)
        encoder = slicing[encoder_end : encoder_end + stage.encoder_blocks]
        encoder_end += stage.encoder_blocks
        decoder_start -= stage.decoder_blocks
        decoder = slicing[decoder_start : decoder_start + stage.decoder_blocks]
        for x, blocks in ((left, encoder), (right, decoder)):
            for j, thickness in enumerate(blocks):
                row, column = divmod(j, per_row)
                at_x, at_y = x + column * step, y + row * ROW
                token_patch(axes, at_x, at_y, SIZE, thickness, colours[tuple(thickness)])
                axes.text(at_x + SIZE / 2, at_y + SIZE + 0.02, shown(thickness), fontsize=5.5, ha="center", va="top")
        last = i == len(data.stages) - 1
        taken = min(len(encoder), per_row) * step
        _arrow(axes, left + taken + 0.02, y + SIZE / 2, right - 0.1, y + SIZE / 2, dashed=not last)
        if not last:
            bottom = top + box_height
            _arrow(axes, left + SIZE / 2, bottom, left + SIZE / 2, tops[i + 1])
            _arrow(axes, right + SIZE / 2, tops[i + 1], right + SIZE / 2, bottom)
    axes.text(left, -0.06, "encoder", fontsize=7, color=MUTED, va="bottom")
    axes.text(right, -0.06, "decoder", fontsize=7, color=MUTED, va="bottom")
    _key(axes, data, height + 0.14, width)
    axes.set_title(f"{data.title}: thickness of the bands in every block")


def _rows(stages: Sequence[Stage], per_row: int) -> tuple[list[float], float]:
    """The upper edge of every stage's box, and the height of all."""
    tops, y = [], 0.0
    for stage in stages:
        tops.append(y)
        y += _box(stage, per_row) + BETWEEN
    return tops, y - BETWEEN + 0.02


def _box(stage: Stage, per_row: int) -> float:
    return -(-max(stage.encoder_blocks, stage.decoder_blocks, 1) // per_row) * ROW + HEAD - 0.05


def _stage_box(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    box = FancyBboxPatch(
        (x + 0.04, y + 0.04), width - 0.08, height - 0.08, boxstyle="round,pad=0.04", fc="none", ec=RULE, lw=0.8
    )
    axes.add_patch(box)


def _arrow(axes: Axes, x1: float, y1: float, x2: float, y2: float, dashed: bool = False) -> None:
    style = {
        "arrowstyle": "-|>,head_length=0.35,head_width=0.14",
        "color": MUTED,
        "lw": 0.7,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    if dashed:
        style["ls"] = (0, (3, 2))
    axes.annotate("", (x2, y2), (x1, y1), arrowprops=style)


def _key(axes: Axes, data: FigureData, y: float, width: float) -> None:
    """What a patch means, with the number of blocks of every thickness."""
    counts = Counter(tuple(thickness) for thickness in data.slicing)
    colours = colours_of([*data.candidates, *data.slicing])
    step = min(0.75, (width - 0.3) / len(colours))
    for i, (thickness, colour) in enumerate(colours.items()):
        x = 0.1 + i * step + (0.05 if len(thickness) == 3 else 0)
        token_patch(axes, x, y, 0.2, thickness, colour)
        axes.text(x + 0.26, y + 0.1, f"{shown(thickness)}: {counts[thickness]}", fontsize=6.5, va="center")
    if len(colours) * step + 2.6 < width:
        axes.text(
            width - 0.05,
            y + 0.1,
            f"a patch is 8{TIMES}8 tokens; dashed: skip of the stage's input",
            fontsize=6,
            color=MUTED,
            va="center",
            ha="right",
        )


def describe_network(data: FigureData) -> str:
    """The same in words, for those who cannot see it."""
    pairs = zip(data.block_names, data.slicing, strict=True)
    return f"Thickness of the {data.n_blocks} blocks: " + ", ".join(f"{n} {shown(t)}" for n, t in pairs) + "."
