"""A network with a slicing that nobody searched is whole: nothing of a search is missing or warned of."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.datasets.request import Request
from nnunetv2_slicemamba.datasets.splits import parse_split
from nnunetv2_slicemamba.planning.residual import RESIDUAL_CLASS, plain_unet_kwargs, residual_kwargs
from nnunetv2_slicemamba.report import ReportSettings
from nnunetv2_slicemamba.report.gather import gather
from nnunetv2_slicemamba.report.page import build_page
from nnunetv2_slicemamba.report.render import render
from nnunetv2_slicemamba.report.slicing_views import slicing_views
from nnunetv2_slicemamba.report.tiles import tiles
from nnunetv2_slicemamba.search.figures.style import TIMES
from tests.report.report_tree import DAY, FINAL, FOLDERS, PLANS, STOCK, Tree

USUAL_SUPERNET = "SliceMambaSupernetTrainer"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A 2D tree of which fold 0 is trained for one epoch with 2x4 everywhere, and validated. Not to be written to."""
    tree = Tree(tmp_path_factory.mktemp("fixed"), "2d", thickness=(2, 4)).add_raw().add_plans()
    tree.add_checkpoint(FINAL, 0, epochs=1).add_validation(FINAL, 0).add_test_predictions()
    return tree


@pytest.fixture
def tree(made: Tree, tmp_path: Path, use) -> Tree:
    """A test's own copy, named by nnU-Net's variables."""
    shutil.copytree(made.root, tmp_path / "tree")
    return use(Tree(tmp_path / "tree", "2d", thickness=(2, 4)))


def page_of(**settings):
    return render(build_page(gather(ReportSettings("501", **settings))), DAY)


def section(html: str, name: str) -> str:
    return re.search(rf'<section id="{name}"(.*?)</section>', html, re.DOTALL)[1]


def place_of(tree: Tree, where: str) -> Path | None:
    return {
        "in a supernet's folder": tree.fold(USUAL_SUPERNET, 0) / "slicing_search" / "best_slicing.json",
        "beside the trainers": tree.folder("nnUNet_results") / "slicings" / f"{PLANS}__2d" / "fold_0.json",
        "the trainer's own": None,
    }[where]


@pytest.mark.parametrize("where", ["in a supernet's folder", "beside the trainers", "the trainer's own"])
def test_a_slicing_that_was_set_misses_no_supernet_and_no_search(tree, where):
    file = place_of(tree, where)
    if file:
        file.parent.mkdir(parents=True)
        tree.set_slicing(file, 0)
    html = page_of()
    assert "Supernet" not in html
    assert 'id="search"' not in html
    assert "optimistic" not in html
    missing = section(html, "progress")
    assert "slicemamba slicing" not in missing  # trainings take the fixed slicing by themselves
    assert f"nnUNetv2_train 501 2d 1 -tr {FINAL} -p {PLANS}" in missing
    assert "slicemamba search" not in missing
    how = "set by hand" if file else "as trained"
    assert f"<strong>Fold 0</strong>: 2{TIMES}4 in all 10 blocks ({how})." in section(html, "slicing")
    assert "<svg" not in section(html, "slicing")
    assert (f"slicemamba slicing -d 501 -c 2d -f 0 -p {PLANS} --set 2x4" in section(html, "commands")) == bool(file)


def test_a_random_slicing_is_drawn_and_set_again_with_its_seed(made, use):
    tree = Tree(made.root.parent / "random", "2d")
    if not tree.root.exists():
        shutil.copytree(made.root, tree.root)
    use(tree)
    file = place_of(tree, "beside the trainers")
    file.parent.mkdir(parents=True, exist_ok=True)
    tree.set_slicing(file, 0, "random")
    data = gather(ReportSettings("501"))
    assert "--set random:3" in data.steps.remedies[0].commands[0]
    (view,) = slicing_views(data)
    assert ([one.fold for one in view.slicings], view.uniform) == (["0"], [])
    assert "trained with another slicing than the file holds now" in view.slicings[0].warning


def test_a_slicing_file_that_cannot_be_read_is_a_problem_and_no_end(tree):
    file = place_of(tree, "beside the trainers")
    file.parent.mkdir(parents=True)
    file.write_text("{")
    problem = section(page_of(), "glance")
    assert "fold_0.json" in problem
    assert str(tree.root) not in problem


def test_one_epoch_is_called_a_trial_beside_its_dice(tree):
    data = gather(ReportSettings("501", predictions=(tree.root / "ensemble",)))
    told = {tile.label: tile.trial for tile in tiles(data)}
    assert (told["Validation Dice"], told["Test Dice"], told["Parameters"]) == ("1 epoch: a trial",) * 2 + ("",)
    assert "1 epoch: a trial" in section(page_of(), "dice")
    tree.add_checkpoint(FINAL, 0, epochs=10)
    data = gather(ReportSettings("501", predictions=(tree.root / "ensemble",)))
    assert {tile.trial for tile in tiles(data)} == {""}


def test_one_epoch_is_a_sentence_and_two_are_marked_points(tree):
    text = section(page_of(), "training")
    assert "<svg" not in text
    assert re.search(r"One epoch is finished, too few for a curve. Fold 0: loss -?0.000 in training", text)
    tree.add_checkpoint(FINAL, 0, epochs=2)
    text = section(page_of(), "training")
    assert "too few" not in text
    assert len(re.findall(r"<use ", text)) >= 8, "two epochs of four curves"


def test_nnunets_default_has_a_row_with_the_commands_that_train_it(tree):
    row = section(page_of(), "dice")
    assert "<strong>nnU-Net's default</strong>, 2d: not trained; this trains it:" in row
    assert re.findall(r"<span>(slicemamba run[^<]*)</span>", row) == [
        "slicemamba run -d 501 -c 2d -f 0 -tr nnUNetTrainer_5epochs"
    ]
    (tree.folder("nnUNet_preprocessed") / "nnUNetPlans.json").unlink()
    assert "<span>nnUNetv2_plan_experiment -d 501</span>" in section(page_of(), "dice")
    tree.add_checkpoint(STOCK, 0, "nnUNetPlans")
    assert "<span>slicemamba run -d 501 -c 2d -f 0 -tr nnUNetTrainer</span>" in section(page_of(), "dice")
    tree.add_validation(STOCK, 0, "nnUNetPlans")
    assert "this trains it" not in page_of()


def test_parameters_are_those_of_plans_that_were_trained(tree):
    file = tree.folder("nnUNet_preprocessed") / f"{PLANS}.json"
    file.with_name("Other.json").write_text(json.dumps(json.loads(file.read_text()) | {"plans_name": "Other"}))
    found = [tile for tile in tiles(gather(ReportSettings("501"))) if tile.label == "Parameters"]
    assert [tile.note for tile in found] == [f"10 blocks, {PLANS}, 2d"]


def test_commands_begin_with_the_conversion_and_end_with_the_predictions(tree):
    plans = tree.folder("nnUNet_preprocessed") / f"{PLANS}.json"
    options = {"gpu_memory": 1.5, "blocks_from_stride": 8, "decoder_blocks": True}
    plans.write_text(json.dumps(json.loads(plans.read_text()) | {OPTIONS_IN_PLANS: options}))
    request = {
        "key": "folders",
        "sources": ["/home/me/my images", "/home/me/other", "/home/me/masks"],
        "labels": ["lesion", "skin"],
        "channels": ["T1", "T2"],
        "test_images": ["/home/me/test", "/home/me/test2"],
        "test_masks": "/home/me/test_masks",
        "split": {"kind": "random", "seed": 2},
        "name": "Own",
        "resize": None,
    }
    raw = tree.folder("nnUNet_raw")
    (raw / "slicemamba_convert.json").write_text(json.dumps({"request": request}))
    predictions = tree.root / "ensemble"
    (predictions / "plans.json").write_text(json.dumps({"plans_name": PLANS}))
    told = {"list_of_lists_or_source_folder": str(raw / "imagesTs")}
    (predictions / "predict_from_raw_data_args.json").write_text(json.dumps(told))
    commands = gather(ReportSettings("501", predictions=(predictions,))).commands
    assert commands[:2] == (
        "slicemamba convert folders --images 'my images' --images other --masks masks --test-images test "
        "--test-images test2 --test-masks test_masks --channels T1,T2 -d 501 --name Own --labels lesion,skin "
        "--split random:2",
        "slicemamba plan -d 501 -c 2d --size S --network paper --gpu-memory 1.5 --blocks-from-stride 8 "
        "--decoder-blocks",
    )
    dataset = '"$nnUNet_raw"/Dataset501_DemoNuclei'
    assert commands[-3:] == (
        f"nnUNetv2_predict -d 501 -i {dataset}/imagesTs -o ensemble -c 2d -tr {FINAL} -p {PLANS} -f 0",
        f"slicemamba evaluate ensemble {dataset}/labelsTs",
        "slicemamba report -d 501 --predictions ensemble",
    )


def test_the_command_of_older_plans_puts_blocks_where_they_are(tree):
    plans = tree.folder("nnUNet_preprocessed") / f"{PLANS}.json"
    content = json.loads(plans.read_text()) | {"experiment_planner_used": "SliceMambaPlannerResidualS"}
    content.pop(OPTIONS_IN_PLANS, None)
    strides = [[1, 1], [2, 2], [2, 2], [2, 2]]
    planned = residual_kwargs(plain_unet_kwargs(strides, [[3, 3]] * 4, "S"), from_stride=8)
    content["configurations"]["2d"]["architecture"] = {"network_class_name": RESIDUAL_CLASS, "arch_kwargs": planned}
    plans.write_text(json.dumps(content))
    assert (
        f"slicemamba plan -d 501 -c 2d --size S --network residual --blocks-from-stride 8 -p {PLANS}"
        in gather(ReportSettings("501")).commands
    )


def test_the_split_of_a_conversion_is_told_as_it_was_given(tree):
    manifest = tree.folder("nnUNet_raw") / "slicemamba_convert.json"
    for split in ("published", "none", "random:3", "by-sequence:1", "holdout:0.2:7"):
        request = Request("clinicdb", (Path("/home/me/clinicdb"),), 501, parse_split(split))
        manifest.write_text(json.dumps({"request": request.as_json()}))
        told = gather(ReportSettings("501")).commands[0]
        assert told == "slicemamba convert clinicdb clinicdb -d 501" + f" --split {split}" * (split != "published")


def test_time_and_machine_are_told(tree):
    file = tree.fold(FINAL, 0) / "debug.json"
    file.write_text(json.dumps({"device": "cuda:0", "gpu_name": "NVIDIA H200", "num_epochs": "1"}))
    (tile,) = [tile for tile in tiles(gather(ReportSettings("501"))) if tile.label == "Training time"]
    assert tile.note == "1 training, 1 epoch; on NVIDIA H200"
    file.write_text(json.dumps({"device": "cpu", "gpu_name": "None"}))
    assert tiles(gather(ReportSettings("501")))[1].note.endswith("on a CPU")


def test_test_images_come_from_the_named_folder_and_missing_ones_are_told_in_the_caption(tree, tmp_path):
    own, predictions = tree.folder("nnUNet_raw") / "imagesTs", (tree.root / "ensemble",)
    elsewhere = tmp_path / "images"
    shutil.move(own, elsewhere)
    html = page_of(predictions=predictions)
    assert section(html, "cases").count("image not found, shown without") == 3
    assert "could not be read" not in html
    for file in elsewhere.iterdir():
        file.rename(file.with_name(file.name.replace("_0000", "")))
    assert "not found" not in section(page_of(predictions=predictions, images=elsewhere), "cases")
    with pytest.raises(InputError, match="holds no image of the predicted cases; name them CASE_0000.png"):
        gather(ReportSettings("501", predictions=predictions, images=tmp_path))
    with pytest.raises(InputError, match="without --predictions"):
        gather(ReportSettings("501", images=elsewhere))


def test_a_speckled_prediction_is_an_area_and_a_smooth_one_an_outline(tree):
    case = tree.validation_cases(0)[0]
    file = tree.fold(FINAL, 0) / "validation" / f"{case}.png"
    speckles = np.random.default_rng(0).random(np.asarray(Image.open(file)).shape) < 0.4
    Image.fromarray(speckles.astype(np.uint8)).save(file)
    figures = re.findall(r'<figure class="case">.*?</figure>', section(page_of(), "cases"), re.DOTALL)
    (speckled,) = [figure for figure in figures if case in figure]
    assert 'class="area class-0"' in speckled
    assert "prediction filled, for its many small parts" in speckled
    assert len(speckled) < 400_000
    for figure in figures:
        assert (figure == speckled) == ("<mask" in figure)


@pytest.mark.parametrize("licence", ["", "one's own", "not stated"])
def test_a_licence_that_nobody_stated_is_not_stated(tree, licence):
    for folder in FOLDERS[:2]:
        file = tree.folder(folder) / "dataset.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"licence": licence}))
    assert '<th scope="row">Licence</th><td>not stated</td>' in page_of()
