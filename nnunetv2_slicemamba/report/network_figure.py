"""The chosen slicing, block by block, on the U-shaped network; and where the folds agree on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from nnunetv2_slicemamba.search import Slicing

from .plans import Stage
from .searches import Agreement, shown_thickness
from .svg import Drawing

BLOCK = 26
STEP_Y = 42
PER_ROW = 3


def candidate_classes(candidates: Sequence[Sequence[int]], slicings: Sequence[Slicing]) -> dict[tuple[int, ...], int]:
    """A number for every thickness that may occur, which gives its colour: candidates first, then whatever was set."""
    seen = [tuple(one) for one in candidates]
    seen += sorted({thickness for slicing in slicings for thickness in slicing} - set(seen))
    return {thickness: number for number, thickness in enumerate(dict.fromkeys(seen))}


def draw_block(
    drawing: Drawing,
    x: float,
    y: float,
    thickness: Sequence[int],
    classes: Mapping[tuple[int, ...], int],
    size: float = BLOCK,
) -> None:
    """A block as a patch of 8 by 8 tokens, ruled into the cells that its thicknesses make.

    The last two axes are height and width; in 3D a tab at the left shows the depth's thickness in the same scale.
    """
    number = classes[tuple(thickness)]
    rows, columns = thickness[-2:]
    drawing.add("rect", x=x, y=y, width=size, height=size, rx=3, class_=f"cell thick-{number % 8}")
    path = [f"M{x:g} {y + size * at / 8:.2f}h{size:g}" for at in range(rows, 8, rows)]
    path += [f"M{x + size * at / 8:.2f} {y:g}v{size:g}" for at in range(columns, 8, columns)]
    if path:
        drawing.add("path", d="".join(path), class_="bands")
    if len(thickness) == 3:
        for at in range(0, 8, thickness[0]):
            height = max(size * min(thickness[0], 8 - at) / 8 - 1.2, 0.6)
            drawing.add(
                "rect", x=x - 4, y=y + size * at / 8 + 0.6, width=2.6, height=height, class_=f"cell thick-{number % 8}"
            )


def network_figure(
    slicing: Slicing, stages: Sequence[Stage], classes: Mapping[tuple[int, ...], int], name: str, label: str
) -> Markup:
    """The U-shape: encoder on the left from top to bottom, decoder on the right from bottom to top.

    slicing: (blocks, axes) in network order. stages: highest resolution first. classes: of candidate_classes. name:
    unique in the page. Raises ValueError if the numbers of blocks differ.
    """
    n_blocks = sum(stage.encoder_blocks + stage.decoder_blocks for stage in stages)
    if n_blocks != len(slicing):
        raise ValueError(f"the slicing has {len(slicing)} blocks, the network {n_blocks}")
    left, gap = 8, 40
    # the text below a block is as wide as its thickness has numbers
    step = 34 if len(slicing[0]) == 2 else 41
    side = PER_ROW * step
    right = left + side + gap
    width = right + side + 4
    tops, height = _rows(stages)
    drawing = Drawing(width, height, "network")
    encoder_end = 0
    decoder_start = n_blocks
    for i, (stage, top) in enumerate(zip(stages, tops, strict=True)):
        rows = max(_lines(stage.encoder_blocks), _lines(stage.decoder_blocks))
        reduced = "\N{MULTIPLICATION SIGN}".join(map(str, stage.reduction))
        head = f"1/{stage.reduction[0]}" if len(set(stage.reduction)) == 1 else f"1/({reduced})"
        drawing.add("rect", x=1, y=top, width=width - 2, height=rows * STEP_Y + 20, rx=8, class_="stage")
        drawing.add("text", x=left, y=top + 14, class_="stage-name", text=f"stage {i + 1}")
        drawing.add(
            "text", x=width - 8, y=top + 14, class_="note", text_anchor="end", text=f"{stage.width} channels at {head}"
        )
        first = top + 22
        _blocks(drawing, left, first, slicing[encoder_end : encoder_end + stage.encoder_blocks], classes, step)
        encoder_end += stage.encoder_blocks
        decoder_start -= stage.decoder_blocks
        _blocks(drawing, right, first, slicing[decoder_start : decoder_start + stage.decoder_blocks], classes, step)
        middle = first + BLOCK / 2
        last = i == len(stages) - 1
        # the skip connection, or at the bottom the way to the decoder
        _arrow(drawing, left + side - 4, middle, right - 12, middle, "flow" if last else "shortcut")
        if not last:
            bottom = top + rows * STEP_Y + 20
            _arrow(drawing, left + BLOCK / 2, bottom, left + BLOCK / 2, tops[i + 1], "flow")
            _arrow(drawing, right + BLOCK / 2, tops[i + 1], right + BLOCK / 2, bottom, "flow")
    return drawing.markup(name, label)


def _rows(stages: Sequence[Stage]) -> tuple[list[float], float]:
    """The upper edge of every stage's box, and the height of all."""
    tops, y = [], 1.0
    for stage in stages:
        tops.append(y)
        y += max(_lines(stage.encoder_blocks), _lines(stage.decoder_blocks)) * STEP_Y + 20 + 16
    return tops, y - 15


def _lines(n_blocks: int) -> int:
    return -(-n_blocks // PER_ROW)


def _blocks(
    drawing: Drawing, x: float, y: float, slicing: Slicing, classes: Mapping[tuple[int, ...], int], step: float
) -> None:
    for i, thickness in enumerate(slicing):
        row, column = divmod(i, PER_ROW)
        at_x, at_y = x + column * step, y + row * STEP_Y
        draw_block(drawing, at_x, at_y, thickness, classes)
        shown = shown_thickness(thickness)
        drawing.add(
            "text", x=at_x + BLOCK / 2, y=at_y + BLOCK + 10, class_="thickness", text_anchor="middle", text=shown
        )


def _arrow(drawing: Drawing, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    drawing.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)
    # a head of its own: markers are referred to by ids, which must be unique in the page
    across, along = (0, 1 if y2 > y1 else -1) if x1 == x2 else (1 if x2 > x1 else -1, 0)
    tip = f"M{x2:g} {y2:g}l{-5 * across - 3 * along:g} {-5 * along - 3 * across:g}"
    drawing.add("path", d=f"{tip}l{6 * along:g} {6 * across:g}z", class_="head")


def agreement_figure(
    slicings: Mapping[str, Slicing],
    agreed: Agreement,
    stages: Sequence[Stage],
    classes: Mapping[tuple[int, ...], int],
    name: str,
) -> Markup:
    """A row per fold, a column per block in network order; below, the share of folds that hold the commonest one.

    Blocks stand in as many rows as a phone's width needs.
    """
    n_blocks = len(agreed.per_block)
    per_line, size, head = 11, 22, 44
    lines = -(-n_blocks // per_line)
    line_height = len(slicings) * (size + 3) + 44
    drawing = Drawing(head + per_line * (size + 4) + 6, lines * line_height, "agreement")
    names = block_names(stages)
    for block in range(n_blocks):
        line, column = divmod(block, per_line)
        x, y = head + column * (size + 4), line * line_height + 14
        drawing.add("text", x=x + size / 2, y=y - 3, class_="note", text_anchor="middle", text=names[block])
        for i, (fold, slicing) in enumerate(slicings.items()):
            if column == 0:
                drawing.add("text", x=0, y=y + i * (size + 3) + 15, class_="note", text=f"fold {fold}")
            draw_block(drawing, x, y + i * (size + 3), slicing[block], classes, size)
        share = agreed.per_block[block]
        base = y + len(slicings) * (size + 3) + 12
        drawing.add("rect", x=x, y=base - 9, width=size, height=10, rx=2, class_="bar-empty")
        drawing.add(
            "rect", x=x, y=base - 9, width=size * share, height=10, rx=2, class_="bar full" if share == 1 else "bar"
        )
        if column == 0:
            drawing.add("text", x=0, y=base, class_="note", text="agree")
    shares = f"{sum(share == 1 for share in agreed.per_block)} of {n_blocks} blocks have one thickness in all folds"
    return drawing.markup(name, f"Thickness of every block in folds {', '.join(slicings)}: {shares}.")


def block_names(stages: Sequence[Stage]) -> list[str]:
    """e1.1, e1.2, ... of the encoder from the highest resolution down, then d4.1, ... of the decoder upwards."""
    names = [f"e{i + 1}.{j + 1}" for i, stage in enumerate(stages) for j in range(stage.encoder_blocks)]
    upwards = reversed(list(enumerate(stages)))
    return names + [f"d{i + 1}.{j + 1}" for i, stage in upwards for j in range(stage.decoder_blocks)]
