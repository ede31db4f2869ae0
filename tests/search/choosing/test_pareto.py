"""The Pareto front as a file, a table and a figure: the same architectures, the chosen one marked."""

import io
import json
import math
from dataclasses import replace

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console

from nnunetv2_slicemamba.search import choose_slicing
from nnunetv2_slicemamba.search.choosing.pareto import Front, front_table, write_front
from nnunetv2_slicemamba.search.figures.generations import draw_generations
from nnunetv2_slicemamba.search.figures.page import write_figures
from nnunetv2_slicemamba.search.figures.pareto import describe_pareto, draw_pareto
from nnunetv2_slicemamba.search.figures.style import STYLE
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import chosen_record, pareto_front
from nnunetv2_slicemamba.search.records import best_record
from tests.search.structured_search import CANDIDATES, N_BLOCKS, data_of, records_of, slicing_of

COST = Cost("latency", True, 7.0)
MEASURED_WITH = {"cost_definition": "made up", "device": "a device", "pytorch": "2.0", "scan_backend": "torch"}


@pytest.fixture(scope="module")
def records():
    """The best ones are slow, the best of all too slow; the fitness of a few is undefined."""
    found = [replace(r, cost=5 + 0.4 * sum(r.architecture[1:4]) + 0.01 * r.index) for r in records_of()]
    found = [replace(r, fitness=math.nan) if i % 40 == 3 else r for i, r in enumerate(found)]
    best = best_record(found)
    return [replace(r, cost=COST.limit + 0.5) if r is best else r for r in found]


@pytest.fixture(scope="module")
def front(records):
    return Front.of(records, chosen_record(records, COST), COST, MEASURED_WITH)


@pytest.fixture(scope="module")
def data(records):
    return replace(data_of(), records=records, cost=COST)


def drawn(draw, *arguments):
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        draw(figure, *arguments)
        figure.draw_without_rendering()
    return figure


def test_the_file_has_every_architecture_of_the_front_and_says_how_the_cost_was_measured(front, records, tmp_path):
    content = json.loads(write_front(front, tmp_path, "dice-latency", CANDIDATES).read_text())
    assert (tmp_path / "pareto.json").is_file()
    assert content["objective"] == "dice-latency"
    assert content["cost"] == {"name": "latency_ms", "limit": 7.0, "minimised": True, **MEASURED_WITH}
    assert content["evaluations"] == len(records)
    assert content["infeasible"] == sum(r.cost > 7.0 for r in records) > 0
    expected = pareto_front(records, COST)
    assert len(expected) > 3
    assert [(tuple(e["architecture"]), e["fitness"], e["latency_ms"]) for e in content["front"]] == [
        (r.architecture, r.fitness, r.cost) for r in expected
    ]
    assert [e["chosen"] for e in content["front"]] == [False] * (len(expected) - 1) + [True]
    for entry in content["front"]:
        assert tuple(map(tuple, entry["slicing"])) == slicing_of(entry["architecture"])


def test_the_table_has_a_row_for_each_and_a_star_at_the_chosen_one(front):
    shown = io.StringIO()
    Console(file=shown, width=200).print(front_table(front, CANDIDATES))
    lines = shown.getvalue().splitlines()
    rows = [line for line in lines if any(" ".join(map(str, r.architecture)) in line for r in front.records)]
    assert len(rows) == len(front.records)
    (starred,) = (row for row in rows if "*" in row)
    assert f"{front.chosen.fitness:.4f}" in starred
    assert f"{front.chosen.cost:.4g}" in starred
    assert "latency (ms)" in shown.getvalue()
    assert "of them above --max-latency-ms 7" in " ".join(shown.getvalue().split())
    assert "a device" in shown.getvalue()


def test_the_figure_shows_each_evaluation_the_front_the_limit_and_the_chosen_one(data, records):
    figure = drawn(draw_pareto, data, COST)
    (axes,) = figure.axes
    points = {c.get_label(): c.get_offsets().tolist() for c in axes.collections}
    defined = [r for r in records if not math.isnan(r.fitness)]
    assert points["evaluation"] == [[r.cost, r.fitness] for r in defined if r.cost <= 7.0]
    assert points["above the limit"] == [[r.cost, r.fitness] for r in defined if r.cost > 7.0]
    assert points["Pareto front"] == [[r.cost, r.fitness] for r in pareto_front(records, COST)]
    best = data.best
    assert points[f"chosen: {best.fitness:.4f}, {best.cost:.4g} ms"] == [[best.cost, best.fitness]]
    assert "limit: 7 ms" in {line.get_label() for line in axes.lines}
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= figure.get_figwidth() + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01
    words = describe_pareto(data, COST)
    assert f"{sum(r.cost > 7.0 for r in defined)} more exceed the limit" in words
    assert f"{best.fitness:.4f} at {best.cost:.4g} ms" in words


def test_equal_costs_as_peak_memory_has_them_can_be_drawn(data):
    memory = Cost("memory", True)
    same = replace(data, records=[replace(r, cost=812.5) for r in data.records], cost=memory)
    assert "812.5 MiB to 812.5 MiB" in describe_pareto(same, memory)
    drawn(draw_pareto, same, memory)


def test_what_is_above_the_limit_is_drawn_but_never_called_chosen_or_best(data, records):
    (axes,) = drawn(draw_generations, data).axes
    best_so_far = axes.lines[1].get_ydata()
    allowed = [r.fitness for r in records if r.cost <= 7.0 and not math.isnan(r.fitness)]
    assert best_so_far[-1] == data.best.fitness == max(allowed)
    highest = max(r.fitness for r in records if not math.isnan(r.fitness))
    assert data.best.fitness < highest <= axes.get_ylim()[1], "it should lie above the chosen one, inside the axes"


def test_the_page_has_the_figure_where_a_cost_was_measured_and_nowhere_else(data, tmp_path):
    data = replace(data, records=data.records[:15], folds={})  # quickly drawn
    page = write_figures(data, tmp_path)
    assert (tmp_path / "figures" / "pareto.png").is_file()
    assert 'id="pareto"' in page.read_text()
    assert "Its latency (ms)" in page.read_text()
    page = write_figures(replace(data, cost=None), tmp_path)
    assert not (tmp_path / "figures" / "pareto.png").exists()
    assert "pareto" not in page.read_text()


def test_a_limit_that_nothing_keeps_leaves_nothing_to_draw(data):
    with pytest.raises(ValueError, match="no record has a defined fitness within --max-latency-ms"):
        replace(data, cost=Cost("latency", True, 1.0))


def test_an_entry_of_the_front_is_taken_by_its_number_and_what_is_none_is_refused(front, tmp_path):
    file = write_front(front, tmp_path, "dice-latency", CANDIDATES)
    for number, record in enumerate(front.records, 1):
        choice = choose_slicing(f"{file}:{number}", N_BLOCKS, 2, CANDIDATES)
        assert choice.slicing == slicing_of(record.architecture)
        assert choice.how_chosen == "file"
        assert choice.details["source"]["latency_ms"] == record.cost
    n = len(front.records)
    for number in (0, n + 1):
        with pytest.raises(ValueError, match=rf"has {n} entries, there is none numbered {number}; give 1 to {n}"):
            choose_slicing(f"{file}:{number}", N_BLOCKS, 2, CANDIDATES)
    with pytest.raises(ValueError, match=r"entry 1 of .* has 9 blocks, this network has 22"):
        choose_slicing(f"{file}:1", 22, 2, CANDIDATES)
    with pytest.raises(ValueError, match=r"none.json cannot be read \(.*\)\. Give the pareto.json of a search"):
        choose_slicing(f"{tmp_path / 'none.json'}:1", N_BLOCKS, 2, CANDIDATES)
    file.write_text('{"front": 3}')
    with pytest.raises(ValueError, match=r"is not a Pareto front: front is 3, it must be a list. Give the pareto.json"):
        choose_slicing(f"{file}:1", N_BLOCKS, 2, CANDIDATES)
