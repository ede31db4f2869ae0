"""Regions, colour images, five folds and searches kept elsewhere are reported as faithfully as the usual case."""

import base64
import io
import json
import re
import shutil
import subprocess
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.evaluation import EvaluationSettings, evaluate_folders
from nnunetv2_slicemamba.report import ReportSettings
from nnunetv2_slicemamba.report.gather import gather
from nnunetv2_slicemamba.report.page import search_view
from nnunetv2_slicemamba.report.slicing_views import slicing_views
from nnunetv2_slicemamba.report.tiles import tiles
from nnunetv2_slicemamba.slicing.holdout_file import Holdout, holdout_path, write_holdout
from tests.report.report_tree import FINAL, PLANS, SUPERNET, Tree


def final_model(data):
    return next(model for model in data.models if model.is_final)


def test_regions_have_the_dice_of_nnunets_summary_whether_given_as_list_or_number(regions_3d, use):
    use(regions_3d)
    model = final_model(gather(ReportSettings("502")))
    for fold in model.folds:
        assert fold.problems == ()
        mean = json.loads((fold.folder / "validation" / "summary.json").read_text())["mean"]
        assert mean.keys() == {"(1, 2)", "2"}
        assert fold.validation.per_class == (mean["(1, 2)"]["Dice"], mean["2"]["Dice"])


def test_a_region_given_as_a_list_of_one_label_is_found_too(regions_3d, use, tmp_path):
    shutil.copytree(regions_3d.root, tmp_path / "tree")
    tree = use(Tree(tmp_path / "tree", "3d"))
    for file in tree.root.rglob("dataset.json"):
        file.write_text(file.read_text().replace('"posterior": 2', '"posterior": [2]'))
    for file in tree.root.rglob("summary.json"):
        file.write_text(file.read_text().replace('"2": {', '"(2,)": {'))
    assert all(fold.validation and not fold.problems for fold in final_model(gather(ReportSettings("502"))).folds)


def test_papers_metrics_of_regions_are_those_of_the_evaluation(regions_3d, use):
    use(regions_3d)
    validation = regions_3d.fold(FINAL, 0) / "validation"
    truth = regions_3d.folder("nnUNet_preprocessed") / "gt_segmentations"
    settings = EvaluationSettings(surface=False)
    expected = evaluate_folders(
        validation, truth, settings=settings, dataset_json=truth.parent / "dataset.json", partial=True
    )
    row = next(row for row in gather(ReportSettings("502")).paper if row.who.startswith(FINAL))
    for i, name in enumerate(("whole", "posterior")):
        assert row.values[i] == pytest.approx(list(expected.paper.scores[name].values()), rel=1e-12)


def test_a_region_around_another_is_drawn_below_it_and_wider(regions_3d, use, html_of):
    html = html_of(use(regions_3d))
    groups = re.findall(r'<g class="contour truth">(.*?)</g>', html, re.DOTALL)
    drawn = [re.findall(r'class="line ([^"]+)"', group) for group in groups]
    assert ["class-0 outer", "class-1"] in drawn
    assert all(lines in (["class-0 outer", "class-1"], ["class-0 outer"]) for lines in drawn)
    assert re.search(r'class="line class-0 outer" d="M1 6h32"/></svg> whole', html), "the key shows the same line"


def test_notes_on_the_papers_metrics_stand_beside_them_and_not_beside_dice(regions_3d, use, html_of):
    sections = dict(re.findall(r'<section id="([^"]+)"(.*?)</section>', html_of(use(regions_3d)), re.DOTALL))
    assert "the paper pools one foreground class" in sections["paper"]
    assert "the paper pools one foreground class" not in sections["dice"]
    assert "bootstrap intervals from 3 cases are rough" in sections["dice"]


def test_colour_images_are_shown_in_their_colours(stained_2d, use, html_of):
    html = html_of(use(stained_2d))
    pictures = re.findall(r'<image href="data:image/png;base64,([^"]+)"', html)
    assert len(pictures) >= 9
    case = gather(ReportSettings("501")).dataset.cases[0]
    stored = np.asarray(Image.open(stained_2d.folder("nnUNet_raw") / "imagesTr" / f"{case}_0000.png"))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[0]))))
    assert np.array_equal(shown, stored)


def test_folds_of_equal_size_are_told_together(stained_2d, use, html_of):
    html = html_of(use(stained_2d))
    assert "folds 0 and 1: 9 for training, 3 for validation; folds 2, 3 and 4: 10 for training, 2 for" in html
    assert tiles(gather(ReportSettings("501")))[0].note == f"{FINAL}, mean of folds 0, 1, 2, 3 and 4"


def test_searches_in_a_sqlite_database_elsewhere_are_read_from_there(stained_2d, use):
    use(stained_2d)
    data = gather(ReportSettings("501"))
    supernet = next(model for model in data.models if model.is_supernet)
    assert [len(fold.search.records) for fold in supernet.folds] == [24] * 5
    assert [fold.problems for fold in supernet.folds] == [()] * 5
    view = search_view(supernet, "s")
    assert len(view.panels) == 5
    slicings = [stained_2d.slicing(fold) for fold in range(5)]
    equal = [a == b for one, other in combinations(slicings, 2) for a, b in zip(one, other, strict=True)]
    (agreement,) = [one.agreement for one in slicing_views(data)]
    assert (agreement.n_folds, agreement.chance) == (5, 0.25)
    assert agreement.share == pytest.approx(sum(equal) / len(equal))


@pytest.mark.parametrize("ledger", ["sqlite:////nowhere/study.db", "postgresql://me:***@unreachable.invalid/studies"])
def test_where_a_searchs_database_is_not_read_its_result_is_shown_and_nothing_made(stained_2d, use, tmp_path, ledger):
    shutil.copytree(stained_2d.root, tmp_path / "tree")
    tree = use(Tree(tmp_path / "tree", "2d", n_folds=5))
    for fold in range(5):
        file = tree.fold(SUPERNET, fold) / "slicing_search" / "best_slicing.json"
        content = json.loads(file.read_text())
        text = json.dumps(content).replace(f"sqlite:///{stained_2d.root}/elsewhere.db", ledger)
        assert ledger in text
        file.write_text(text)
    before = sorted(tree.root.rglob("*"))
    data = gather(ReportSettings("501"))
    fold = next(model for model in data.models if model.is_supernet).folds[0]
    assert fold.problems == (
        f"The search's evaluations are in {ledger}, which is not read here: only its result is shown.",
    )
    assert (fold.search.evaluations, fold.search.best_fitness, fold.search.records) == (24, 0.75, ())
    tile = next(tile for tile in tiles(data) if tile.label == "Best fitness")
    assert (tile.value, tile.note) == ("0.7500", "120 evaluations in 5 searches")
    assert ("done", "24 evaluations") in [state for row in data.steps.rows for state in row.states]
    assert sorted(tree.root.rglob("*")) == before


def test_a_hybrids_stem_is_shown_and_its_option_is_in_the_commands(complete_2d, use, html_of, tmp_path):
    shutil.copytree(complete_2d.root, tmp_path / "tree")
    tree = use(Tree(tmp_path / "tree", "2d"))
    for file in tree.root.rglob(f"{PLANS}.json"):
        plans = json.loads(file.read_text()) | {"experiment_planner_used": "SliceMambaPlannerHybridS"}
        plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["stem_features"] = [16, 24]
        file.write_text(json.dumps(plans))
    html = html_of(tree)
    rows = re.findall(r"Convolutional stem, channels</th>(.*?)</tr>", html, re.DOTALL)
    assert len(rows) == 1
    assert rows[0].strip().startswith("<td>16, 24</td>")
    assert f"slicemamba plan -d 501 -c 2d --size S --network hybrid -p {PLANS}" in html


def test_commands_have_every_option_and_quote_names_from_outside(complete_2d, use, html_of, tmp_path):
    shutil.copytree(complete_2d.root, tmp_path / "tree")
    tree = use(Tree(tmp_path / "tree", "2d"))
    for file in tree.root.rglob(f"{PLANS}.json"):
        plans = json.loads(file.read_text())
        plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["activation_checkpointing"] = True
        plans[OPTIONS_IN_PLANS] = {"gpu_memory": 1.5}
        file.write_text(json.dumps(plans))
    supernet = tree.fold(SUPERNET, 0)
    holdout = Holdout(tree.shipped.folder_name, PLANS, "2d", 0, 0.25, 7, ("a", "b"), "0" * 64)
    write_holdout(holdout, holdout_path(supernet))
    foreign = supernet.parent.with_name(f"SliceMambaSupernetTrainer__{PLANS}__2d;touch owned")
    shutil.copytree(supernet, foreign / "fold_0$(touch owned)\x1b[2J")
    text = html_of(tree)
    assert "\x1b" not in text
    commands = gather(ReportSettings(tree.number)).commands
    plan = "slicemamba plan -d 501 -c 2d --size S --network paper --gpu-memory 1.5 --activation-checkpointing"
    assert plan in commands
    fold = f"-d {tree.shipped.folder_name} -c 2d -f 0 -p {PLANS}"
    assert f"slicemamba holdout {fold} -tr {SUPERNET} --fraction 0.25 --seed 7" in commands
    words = r"nnUNetv2_train 501 '2d;touch owned' $'0$(touch owned)\x1b[2J'"
    assert f"{words} -tr SliceMambaSupernetTrainer -p {PLANS}" in commands
    for command in commands:
        # a shell that only echoes the words runs nothing
        done = subprocess.run(["bash", "-c", f"echo {command}"], cwd=tmp_path, capture_output=True, check=True)
        assert done.stderr == b""
    assert not (tmp_path / "owned").exists()
