"""The figure of a search shows what the search did."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nnunetv2_slicemamba.search import Record, write_search_figure
from nnunetv2_slicemamba.search import figure as figure_module

NAMES = ["2x2", "2x4", "4x2", "4x4"]


def records_of(n_generations=4, n_blocks=6, population=10, seed=0):
    rng = np.random.default_rng(seed)
    records = []
    for generation in range(n_generations):
        for index in range(population):
            origin = "random" if generation == 0 else ("mutant", "crossover")[index % 2]
            architecture = tuple(rng.integers(0, 4, n_blocks).tolist())
            fitness = 0.7 + 0.05 * generation + 0.02 * rng.random()
            records.append(Record(architecture, fitness, generation, index, origin, 1.0))
    records[3] = Record(records[3].architecture, math.nan, 0, 3, "random", 1.0)
    records[15] = Record(records[15].architecture, 0.01, 1, 5, "crossover", 1.0)  # an outlier
    return records


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, so that their content can be looked at."""
    figures = []

    class Kept(Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    return figures


def test_every_evaluation_best_and_mean_are_drawn(tmp_path, drawn):
    records = records_of()
    write_search_figure(records, tmp_path / "search.png", NAMES, title="Dataset999, 2d, fold 0")
    (figure,) = drawn
    above, below, colorbar = figure.axes
    points = sum(
        np.isfinite(np.ma.filled(c.get_offsets(), np.nan)).all(axis=1).sum()
        for c in above.collections
        if type(c).__name__ == "PathCollection"
    )
    assert points == len(records) - 1 + 1  # all but the undefined one, and the winner's star
    (best,) = above.lines
    assert best.get_ydata()[-1] == max(r.fitness for r in records if not math.isnan(r.fitness))
    assert np.all(np.diff(best.get_ydata()) >= 0)
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["random", "mutant", "crossover", "generation mean", "best so far", "below the axis"]
    assert above.get_ylim()[0] > 0.3, "one outlier flattens the rest"
    assert above.get_xlabel().startswith("evaluation")
    assert above.get_ylabel() == "fitness (mean foreground Dice)"
    assert [t.get_text() for t in below.get_yticklabels()] == [n.replace("x", chr(215)) for n in NAMES]
    assert below.get_xlabel() == "block, in network order"
    assert colorbar.get_ylabel() == "share"
    assert [text.get_text() for text in figure.texts] == ["Dataset999, 2d, fold 0"]


def test_nothing_is_cut_off(tmp_path, drawn):
    stages = [("encoder 1", 2), ("encoder 2", 3), ("decoder", 1)]
    write_search_figure(records_of(), tmp_path / "search.png", NAMES, title="a title", stages=stages)
    (figure,) = drawn
    width, height = figure.bbox.size
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()
    legend = figure.axes[0].get_legend().get_window_extent()
    assert legend.x1 <= width
    assert legend.y1 <= height
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["encoder 1", "encoder 2", "decoder"]


def test_the_shares_are_those_of_the_best():
    records = [
        Record((0, 1), 0.9, 0, 0, "random", 1.0),
        Record((0, 2), 0.8, 0, 1, "random", 1.0),
        Record((3, 3), 0.1, 0, 2, "random", 1.0),
        Record((3, 3), math.nan, 0, 3, "random", 1.0),
    ]
    shares, n = figure_module.candidate_shares(records, 4, 2)
    assert n == 2
    assert shares.tolist() == [[1, 0], [0, 0.5], [0, 0.5], [0, 0]]
    shares, n = figure_module.candidate_shares(records, 4, 50)
    assert n == 3
    assert shares.sum(axis=0) == pytest.approx([1, 1])


def test_the_file_is_a_png_that_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "search.png"
    path.parent.mkdir()
    path.write_text("old")
    write_search_figure(records_of(2), path, NAMES)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1440, 1080)
    assert list(path.parent.iterdir()) == [path]


def test_a_single_evaluation_can_be_drawn(tmp_path):
    write_search_figure([Record((0,), 0.5, 0, 0, "random", 1.0)], tmp_path / "one.png", NAMES)
    assert (tmp_path / "one.png").is_file()


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no record has a defined fitness"):
        write_search_figure([Record((0,), math.nan, 0, 0, "random", 1.0)], tmp_path / "none.png", NAMES)
    assert not (tmp_path / "none.png").exists()
