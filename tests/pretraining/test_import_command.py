"""`slicemamba import` writes what nnU-Net's -pretrained_weights loads, and says what it did."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.pretraining.weights_file import planned_network
from nnunetv2_slicemamba.search import read_slicing_file
from nnunetv2_slicemamba.trainers import TRAINERS
from tests.cli.commands import called
from tests.pretraining.published_networks import as_vmunet, published

WHERE = ["-d", "901", "-c", "2d", "-p", "nnUNetSliceMambaSPlans"]


@pytest.fixture
def selection(workspace: Path) -> Selection:
    return select("901", "2d", "0", "nnUNetSliceMambaSPlans")


@pytest.fixture
def run(workspace: Path, selection: Selection, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: Any) -> str:
        ended = called(*map(str, words))
        if ended.code:
            assert ended.code == 2, ended.message
            raise ValueError(ended.message)
        return ended.out

    return call


def make_trainer(workspace: Path, name: str) -> Any:
    folder = workspace / "nnUNet_preprocessed" / "Dataset901_Disks"
    plans = json.loads((folder / "nnUNetSliceMambaSPlans.json").read_text()) | {"continue_training": False}
    trainer = TRAINERS[name](plans, "2d", 0, json.loads((folder / "dataset.json").read_text()), torch.device("cpu"))
    trainer.initialize()
    return trainer


def vmunet_file(path: Path, selection: Selection) -> tuple[Path, Any]:
    """A VM-UNet checkpoint of the planned sizes, but with three input channels and one class; the network in it."""
    network = planned_network(selection, seed=7)
    weights = as_vmunet(published(network))
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].repeat(1, 3, 1, 1) / 3
    for name in ("final_conv.weight", "final_conv.bias"):
        weights[name] = weights[name][1:]
    torch.save({"epoch": 3, "model_state_dict": {f"vmunet.{n}": v for n, v in weights.items()}}, path)
    return path, network


def test_stock_nnunet_loads_the_file_and_the_trainer_then_uses_the_folds_slicing(
    workspace: Path, tmp_path: Path, selection: Selection, run: Callable[..., str]
) -> None:
    source, network = vmunet_file(tmp_path / "vmunet.pth", selection)
    printed = run("import", source, "--to", tmp_path / "ours.pth", *WHERE)
    assert f"vmunet network, sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}" in printed
    assert "Slicing: 1x1 (of vmunet: thickness 1)" in printed
    assert "\nNext: nnUNetv2_train " in printed
    quiet = run("import", source, "--to", tmp_path / "quiet.pth", *WHERE, "-q")
    assert quiet.splitlines()[-1].startswith("Report: "), "what to type next is left out"

    run("slicing", *WHERE, "-f", "0", "--set", "random:1")
    trainer = make_trainer(workspace, "SliceMambaTrainer_1epoch")
    load_pretrained_weights(trainer.network, str(tmp_path / "ours.pth"))
    expected = network.state_dict()
    for name, value in trainer.network.state_dict().items():
        if ".seg_layers." not in name and name != "slicing":
            assert torch.allclose(value, expected[name], atol=1e-7), name
    assert set(trainer.network.get_slicing()) == {(1, 1)}
    trainer._use_slicing_file()
    assert trainer.network.get_slicing() == read_slicing_file(trainer.find_slicing()).slicing


def test_the_report_names_every_weight_and_the_source(
    tmp_path: Path, selection: Selection, run: Callable[..., str]
) -> None:
    source, network = vmunet_file(tmp_path / "vmunet.pth", selection)
    printed = run("import", source, "--to", tmp_path / "ours.pth", *WHERE)
    report = json.loads((tmp_path / "ours.pth.json").read_text())
    assert report["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    adapted = {entry["ours"]: entry["changes"] for entry in report["adapted"]}
    last = len(network.decoder.seg_layers) - 1
    assert adapted == {
        "encoder.patch_embedding.proj.weight": ["3 input channels became 1"],
        f"decoder.seg_layers.{last}.weight": ["one sigmoid class became background and foreground"],
        f"decoder.seg_layers.{last}.bias": ["one sigmoid class became background and foreground"],
    }
    names = {entry["ours"] for entry in [*report["loaded"], *report["adapted"]]} | set(report["initialised"])
    assert names | {"slicing"} == set(network.state_dict())
    assert "3 input channels became 1" in printed
    assert json.loads(torch.load(tmp_path / "ours.pth", weights_only=True)["slicemamba"]) == report


def test_the_folds_slicing_or_another_can_be_given_along(
    tmp_path: Path, selection: Selection, run: Callable[..., str]
) -> None:
    source, _ = vmunet_file(tmp_path / "vmunet.pth", selection)
    run("slicing", *WHERE, "-f", "1", "--set", "random:4")
    own = read_slicing_file(select("901", "2d", "1", selection.plans_name).set_slicing_file)
    for options, expected in ((["-f", "1"], own.slicing), (["--slicing", "4x2"], ((4, 2),) * selection.n_blocks)):
        run("import", source, "--to", tmp_path / "ours.pth", *WHERE, *options)
        buffer = torch.load(tmp_path / "ours.pth", weights_only=True)["network_weights"]["slicing"]
        assert tuple(map(tuple, buffer.tolist())) == expected


def test_a_published_supernet_gives_the_supernet_trainers_weights_or_one_path_of_them(
    workspace: Path, tmp_path: Path, selection: Selection, run: Callable[..., str]
) -> None:
    supernet: Any = planned_network(selection, supernet=True, seed=3)
    torch.save({f"smunet.{n}": v for n, v in published(supernet).items()}, tmp_path / "supernet.pth")
    run("import", tmp_path / "supernet.pth", "--to", tmp_path / "all.pth", *WHERE)
    trainer = make_trainer(workspace, "SliceMambaSupernetTrainer_1epoch")
    load_pretrained_weights(trainer.network, str(tmp_path / "all.pth"))
    name = "encoder.stages.1.blocks.0.2.bss.Ds"
    assert torch.equal(trainer.network.state_dict()[name], supernet.state_dict()[name])

    run("import", tmp_path / "supernet.pth", "--to", tmp_path / "path.pth", *WHERE, "--slicing", "random:5")
    found = torch.load(tmp_path / "path.pth", weights_only=True)["network_weights"]
    path = [selection.candidates.index(tuple(thickness)) for thickness in found["slicing"].tolist()]
    assert len(set(path)) > 1
    for key, value in supernet.extract(path).state_dict().items():
        if ".seg_layers." not in key:
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "swin"], "a source is one of slicemamba, vmunet, vmamba, own, not 'swin'"),
        (["--inflate", "median"], "inflated by mean or center, not by 'median'"),
        (["--widths", "shrink"], "--widths is 'shrink'"),
        (["-f", "0", "--slicing", "2x4"], "give one of the two"),
        (["--ema"], "has no moving average, it has: epoch, model_state_dict"),
        (["--slicing", "2x4x2"], "has 3 numbers, this network has 2 axes"),
    ],
)
def test_bad_requests_are_refused_and_write_nothing(
    tmp_path: Path, selection: Selection, run: Callable[..., str], options: list[str], message: str
) -> None:
    source, _ = vmunet_file(tmp_path / "vmunet.pth", selection)
    with pytest.raises(ValueError, match=message):
        run("import", source, "--to", tmp_path / "out" / "ours.pth", *WHERE, *options)
    assert not (tmp_path / "out").exists()


def test_the_source_is_never_written_over(tmp_path: Path, selection: Selection, run: Callable[..., str]) -> None:
    source, _ = vmunet_file(tmp_path / "vmunet.pth", selection)
    with pytest.raises(ValueError, match="is the source itself"):
        run("import", source, "--to", source, *WHERE)


def test_a_checkpoint_is_never_written_over_and_imported_weights_are(
    tmp_path: Path, selection: Selection, run: Callable[..., str]
) -> None:
    source, _ = vmunet_file(tmp_path / "vmunet.pth", selection)
    other = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "optimizer_state": {}}, other)
    before = other.read_bytes()
    with pytest.raises(ValueError, match="was not written by this command: it would be lost"):
        run("import", source, "--to", other, *WHERE)
    assert other.read_bytes() == before
    (tmp_path / "ours.pth.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"ours\.pth\.json is there already and was not written by this command"):
        run("import", source, "--to", tmp_path / "ours.pth", *WHERE)
    (tmp_path / "ours.pth.json").unlink()
    for _ in range(2):
        run("import", source, "--to", tmp_path / "ours.pth", *WHERE)


def test_settings_of_published_trainings_do_not_hinder_reading(
    tmp_path: Path, selection: Selection, run: Callable[..., str]
) -> None:
    yacs = pytest.importorskip("yacs.config", reason="VMamba's checkpoints hold its settings as yacs objects")
    source, _ = vmunet_file(tmp_path / "vmunet.pth", selection)
    content = torch.load(source, weights_only=True)
    content["config"] = yacs.CfgNode({"TRAIN": yacs.CfgNode({"EPOCHS": 300})})
    torch.save(content, tmp_path / "with_settings.pth")
    run("import", tmp_path / "with_settings.pth", "--to", tmp_path / "ours.pth", *WHERE)
