"""The figures of a search show what it did, claim no more than it allows, and cut nothing off."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from nnunetv2_slicemamba.search import Record, history_of
from nnunetv2_slicemamba.search.figures.agreement import (
    chosen_slicings,
    draw_agreement,
    draw_thicknesses,
    fitness_agreement,
    thickness_agreement,
)
from nnunetv2_slicemamba.search.figures.candidates import candidate_shares, draw_candidates
from nnunetv2_slicemamba.search.figures.data import FoldChoice
from nnunetv2_slicemamba.search.figures.generations import draw_generations
from nnunetv2_slicemamba.search.figures.importance import Importance, draw_importance, importance_of
from nnunetv2_slicemamba.search.figures.network import draw_network, draw_slicing
from nnunetv2_slicemamba.search.figures.page import write_figures
from nnunetv2_slicemamba.search.figures.stages import Stage, stages_of
from nnunetv2_slicemamba.search.figures.style import ORIGIN_STYLES, STYLE, TIMES, colours_of, shown
from tests.search.structured_search import CANDIDATES, DECISIVE, MINOR, N_BLOCKS, data_of, fitness, records_of


@pytest.fixture(scope="module")
def data():
    return data_of()


@pytest.fixture(scope="module")
def importance(data):
    found = importance_of(data.records, 4)
    assert isinstance(found, Importance)
    return found


def drawn(draw, *arguments):
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        draw(figure, *arguments)
        figure.draw_without_rendering()
    return figure


def test_the_fitness_figure_has_every_evaluation_and_each_generations_best_with_its_origin(data):
    (axes,) = drawn(draw_generations, data).axes
    points = {c.get_label(): c.get_offsets() for c in axes.collections if type(c).__name__ == "PathCollection"}
    evaluations = [c for c in axes.collections if type(c).__name__ == "PathCollection" and len(c.get_offsets()) > 10]
    hidden = sum(r.fitness < axes.get_ylim()[0] for r in data.records)
    assert sum(len(c.get_offsets()) for c in evaluations) == len(data.records) - hidden
    for generation in range(7):
        best = max((r for r in data.records if r.generation == generation), key=lambda r: r.fitness)
        own = points[f"generation's best: {ORIGIN_STYLES[best.origin][0]}"].tolist()
        assert any(point == pytest.approx([generation, best.fitness]) for point in own), generation
    mean, best_so_far = axes.lines
    assert mean.get_ydata()[2] == pytest.approx(np.mean([r.fitness for r in data.records if r.generation == 2]))
    assert best_so_far.get_ydata()[-1] == max(r.fitness for r in data.records)
    assert points[f"chosen: {data.best.fitness:.4f}"].tolist() == [[data.best.generation, data.best.fitness]]


def test_generations_have_whole_numbers_even_a_single_one(data):
    for n in (18, len(data.records)):
        (axes,) = drawn(draw_generations, replace(data, records=data.records[:n])).axes
        low, high = axes.get_xlim()
        shown_ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown_ticks
        assert all(tick == round(tick) for tick in shown_ticks)


def test_origins_differ_in_shape_and_candidates_in_ruling_not_only_in_colour(data):
    assert len({marker for _, _, marker in ORIGIN_STYLES.values()}) == len(ORIGIN_STYLES)
    (axes,) = drawn(draw_network, data).axes
    cut = [shape_of(patch) for patch in token_patches(axes)[-len(CANDIDATES) :]]
    assert len(set(cut)) == len(CANDIDATES)


def test_a_patch_is_cut_into_the_cells_of_its_thickness(data):
    slicing = tuple((2, 4, 3) for _ in range(N_BLOCKS))
    axes = Figure().subplots()
    draw_slicing(axes, slicing, data.stages, colours_of(((2, 4, 3),)), 3)
    boxes = shape_of(token_patches(axes)[0])
    # tokens along the depth in pairs at the left, then rows of four, and columns of three with a rest of two
    tab, cells = [box for box in boxes if box[2] < 0.05], [box for box in boxes if box[2] > 0.05]
    assert len(tab) == 4
    assert len({top for _, top, *_ in cells}) == 2
    widths = [width for _, top, width, _ in cells if top == 0]
    assert len(widths) == 3
    assert widths[-1] == min(widths)


def token_patches(axes):
    return [patch for patch in axes.patches if type(patch).__name__ == "PathPatch"]


def shape_of(patch):
    """(left, top, width, height) of a patch's cells, relative to the patch, in order."""
    corners = patch.get_path().vertices.reshape(-1, 5, 2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    origin = low.min(axis=0)
    return tuple(tuple(np.round([*(a - origin), *(b - a)], 3)) for a, b in zip(low, high, strict=True))


@pytest.mark.parametrize("per_row", [9, 2])
def test_the_network_figure_names_every_block_in_its_place(data, per_row):
    axes = Figure().subplots()
    draw_slicing(axes, data.slicing, data.stages, colours_of(CANDIDATES), per_row)
    placed = [(t.get_position(), t.get_text()) for t in axes.texts if re.fullmatch(rf"\d{TIMES}\d", t.get_text())]
    assert len(placed) == N_BLOCKS
    half = max(x for (x, _), _ in placed) / 2
    thicknesses = [shown(thickness) for thickness in data.slicing]
    tops = sorted(t.get_position()[1] for t in axes.texts if t.get_text().startswith("stage "))

    def read(side):
        """The blocks of every stage from the highest resolution down, each stage's rows from left to right."""
        ordered = sorted(side, key=lambda p: (p[0][1], p[0][0]))
        bounds = zip(tops, [*tops[1:], math.inf], strict=True)
        return [[text for (_, y), text in ordered if top < y < end] for top, end in bounds]

    left, right = ([p for p in placed if (p[0][0] < half) == is_left] for is_left in (True, False))
    assert read(left) == [thicknesses[:1], thicknesses[1:4], thicknesses[4:5]], "the encoder reads downwards"
    assert read(right)[::-1] == [thicknesses[5:6], thicknesses[6:8], thicknesses[8:]], "the decoder reads upwards"


def test_a_slicing_of_another_network_is_not_drawn(data):
    with pytest.raises(ValueError, match="the slicing has 5 blocks, the network 9"):
        draw_slicing(Figure().subplots(), data.slicing[:5], data.stages, colours_of(CANDIDATES), 3)


def test_a_thickness_that_is_no_candidate_has_a_colour_of_its_own():
    colours = colours_of(CANDIDATES, [((8, 8), (2, 2)), ((1, 1), (8, 8))])
    assert list(colours) == [*CANDIDATES, (1, 1), (8, 8)]
    assert len(set(colours.values())) == 6


def test_the_shares_leave_out_what_has_no_fitness():
    records = [
        Record((0, 1), 0.9, 0, 0, "random", 1.0),
        Record((0, 2), 0.8, 0, 1, "random", 1.0),
        Record((3, 3), 0.1, 0, 2, "random", 1.0),
        Record((3, 3), math.nan, 0, 3, "random", 1.0),
    ]
    shares, n = candidate_shares(records, 4, 2)
    assert n == 2
    assert shares.tolist() == [[1, 0], [0, 0.5], [0, 0.5], [0, 0]]
    assert candidate_shares(records, 4, 50)[1] == 3


def test_the_candidates_figure_has_the_shares_of_the_best(data):
    axes, _ = drawn(draw_candidates, data).axes
    shares = np.asarray(axes.images[0].get_array())
    best = sorted(data.records, key=lambda r: -r.fitness)[:50]
    assert shares[:, DECISIVE] == pytest.approx(
        [np.mean([r.architecture[DECISIVE] == c for r in best]) for c in range(4)]
    )
    assert [t.get_text() for t in axes.get_xticklabels()] == data.block_names
    assert data.block_names == ["e1.1", "e2.1", "e2.2", "e2.3", "e3.1", "d3.1", "d2.1", "d2.2", "d1.1"]


def test_importance_finds_the_blocks_that_decide_and_calls_the_others_chance(importance):
    assert importance.share.sum() == pytest.approx(1)
    assert importance.share.argmax() == DECISIVE
    assert importance.share[DECISIVE] > 0.5
    assert importance.share[MINOR] > importance.chance


def test_importance_of_pure_noise_is_nowhere_far_above_chance():
    rng = np.random.default_rng(0)
    noise = [
        Record(tuple(rng.integers(0, 4, N_BLOCKS).tolist()), float(rng.normal()), 0, i, "random", 1.0)
        for i in range(150)
    ]
    found = importance_of(noise, 4)
    assert isinstance(found, Importance)
    assert (found.share > found.chance).sum() <= 2


def test_importance_says_why_it_cannot_be_had():
    assert "at least 20 evaluations, there are 5" in importance_of(records_of()[:5], 4)
    same = [replace(record, fitness=0.5) for record in records_of(population=12, generations=2)]
    assert "same fitness" in importance_of(same, 4)


def test_agreement_counts_pairs_of_folds(data):
    a, b = ((2, 2), (2, 2), (4, 4)), ((2, 2), (2, 4), (2, 2))
    assert thickness_agreement([a, b, a]) == pytest.approx([1, 1 / 3, 1 / 3])
    with pytest.raises(ValueError, match="at least two folds"):
        thickness_agreement([a])
    folds = {"0": FoldChoice(a, ()), "3": FoldChoice(None, ())}
    assert chosen_slicings(replace(data, folds=folds)) == {"0": a}


def test_blocks_on_several_lines_are_those_of_one_line(data):
    slicings, colours = chosen_slicings(data), colours_of(CANDIDATES)
    one, several = (
        drawn(lambda f, n=n: draw_thicknesses(f, slicings, data.stages, colours, 0.25, 7.2, n)).axes for n in (None, 4)
    )
    assert (len(one), len(several)) == (2, 6)
    names = [[t.get_text() for t in axes.get_xticklabels()] for axes in several[1::2]]
    assert names == [data.block_names[:4], data.block_names[4:8], data.block_names[8:]]
    heights = [bar.get_height() for axes in several[1::2] for bar in axes.patches]
    assert heights == pytest.approx([bar.get_height() for bar in one[1].patches])
    fills = [patch.get_facecolor() for axes in several[::2] for patch in token_patches(axes)]
    assert sorted(fills) == sorted(patch.get_facecolor() for patch in token_patches(one[0]))


def test_folds_agree_on_fitness_by_spearman_over_what_both_evaluated(data):
    one, other = data.folds["0"].history, data.folds["1"].history
    shared = sorted({a for a, _ in one} & {a for a, _ in other})
    assert len(shared) >= 24, "searches with one seed share at least their random generation"
    value, n = fitness_agreement(one, other)
    assert n == len(shared)
    assert value == pytest.approx(stats.spearmanr([fitness(a, 0) for a in shared], [fitness(a, 1) for a in shared])[0])
    assert math.isnan(fitness_agreement(one[:4], other[:4])[0])


@pytest.mark.parametrize(("axes", "stages"), [(2, 1), (3, 5)])
def test_nothing_is_cut_off_whatever_the_network(data, importance, axes, stages):
    candidates = tuple(tuple(2 + 2 * i for i in at) for at in np.ndindex(*(2,) * axes))
    blocks = 11 if stages == 5 else 2
    shape = [Stage(blocks if i == 2 else 2, 2, 96 * 2**i, (4,) * axes) for i in range(stages)]
    n = sum(stage.encoder_blocks + stage.decoder_blocks for stage in shape)
    rng = np.random.default_rng(0)
    records = [
        Record(
            tuple(rng.integers(0, len(candidates), n).tolist()),
            float(rng.normal(0.8, 0.01)),
            i // 10,
            i % 10,
            "random",
            1,
        )
        for i in range(60)
    ]
    slicing = tuple(candidates[i] for i in records[0].architecture)
    folds = {str(i): FoldChoice(slicing, history_of(records)) for i in range(5)}
    other = replace(
        data, dataset="Dataset137_BraTS2021", records=records, candidates=candidates, stages=shape, folds=folds
    )
    shares = Importance(np.full(n, 1 / n), 0.02)
    draws = (
        draw_generations,
        draw_network,
        draw_candidates,
        draw_agreement,
        lambda f, d: draw_importance(f, d, shares),
    )
    for draw in draws:
        figure = drawn(draw, other)
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0) >= -0.01, draw
        assert box.x1 <= figure.get_figwidth() + 0.01, draw
        assert box.y1 <= figure.get_figheight() + 0.01, draw


def test_neighbouring_marks_differ_in_grey(importance, data):
    (axes,) = drawn(draw_importance, data, importance).axes
    greys = {np.dot(to_rgb(patch.get_facecolor()), (0.2126, 0.7152, 0.0722)).round(2) for patch in axes.patches}
    assert len(greys) == 1 or max(greys) - min(greys) > 0.2


def test_all_figures_are_written_at_200_dots_per_inch_and_outdated_ones_removed(data, tmp_path):
    page = write_figures(data, tmp_path)
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert names == ["agreement.png", "candidates.png", "fitness.png", "importance.png", "slicing.png"]
    for name in names:
        with Image.open(tmp_path / "figures" / name) as image:
            assert image.width == 1440
            assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
    assert "&lt;b&gt;Test&lt;/b&gt;" in page.read_text()
    assert "<b>Test" not in page.read_text()
    alone = replace(data, records=data.records[:5], folds={"0": data.folds["0"]})
    text = write_figures(alone, tmp_path).read_text()
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["fitness.png", "slicing.png"]
    assert "at least 20 evaluations" in text
    assert "5 architectures were evaluated, and the best of fewer than 50 say nothing" in text
    assert "its share among the best" not in text
    assert "is the only one that is searched" in text


def test_the_best_are_the_better_half_at_most_and_the_caption_says_how_many(data, tmp_path):
    text = write_figures(replace(data, records=data.records[:60]), tmp_path).read_text()
    assert "among the best 30 of 60 architectures, in percent" in text
    assert data.n_best == 50


def test_the_page_says_first_how_much_of_the_spread_is_noise(data, tmp_path):
    def first_line(records):
        text = write_figures(replace(data, records=records, folds={}), tmp_path).read_text()
        return re.search(r"</h1>\s*<p[^>]*>(.*?)</p>", text, re.DOTALL)[1]

    assert "cannot be told:</strong> the evaluations of this search do not hold" in first_line(data.records)
    rng = np.random.default_rng(0)
    cases, same = rng.normal(0.8, 0.1, 12), data.records[:24]
    noise, clear = (
        [
            replace(r, details={"fitness_per_case": list(cases + size * r.fitness + rng.normal(0, 0.02, 12))})
            for r in same
        ]
        for size in (0, 5)
    )
    assert "is noise: no difference between the architectures stands out from it." in first_line(noise)
    assert "is noise: the architectures differ by more than that." in first_line(clear)


def test_nothing_to_draw_is_an_error(data):
    with pytest.raises(ValueError, match="no record has a defined fitness"):
        replace(data, records=[replace(data.records[0], fitness=math.nan)])


def test_the_stages_are_those_of_the_plans():
    arch_kwargs = {
        "strides": [[4, 4], [2, 1]],
        "features_per_stage": [24, 48],
        "n_blocks_per_stage": [2, 9],
        "n_blocks_per_stage_decoder": [3, 1],
    }
    assert stages_of(arch_kwargs) == (Stage(2, 1, 24, (4, 4)), Stage(9, 3, 48, (8, 4)))
