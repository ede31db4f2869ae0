"""Tests of the published experiment's benchmark: its data, its protocol and its metrics, on drawn images."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paper
import pytest
import results
import torch
from accuracy_training import Notes
from paper_data import Images, augmented, lay_out, split_of
from paper_search import search
from paper_training import Order, Training, best_epoch, build, count, learning_rate, losses, lowest_rate_epoch, pooled
from PIL import Image

from nnunetv2_slicemamba.datasets.converters import clinicdb, kvasir
from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.nets import SliceMambaResidualUNet
from nnunetv2_slicemamba.search import SearchSettings

POLYPS = [*sorted(kvasir.TEST)[:2], "cju1", "cju2", "cju3"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten skin images of a bright square each, five polyps of Kvasir and four of ClinicDB, 32x32."""
    folder, rng = tmp_path_factory.mktemp("suite"), np.random.default_rng(0)
    sets = {
        "isic2017": [f"ISIC_{i}" for i in range(10)],
        "kvasir": POLYPS,
        "clinicdb": [*sorted(clinicdb.TEST)[:1], *"456"],
    }
    for source, names in sets.items():
        for kind in ("images", "masks"):
            (folder / source / kind).mkdir(parents=True)
        for name in names:
            mask = np.zeros((32, 32), np.uint8)
            y, x = rng.integers(0, 20, 2)
            mask[y : y + 12, x : x + 12] = 255
            image = np.repeat((mask // 2 + rng.integers(0, 60, (32, 32)).astype(np.uint8))[..., None], 3, 2)
            Image.fromarray(image).save(folder / source / "images" / f"{name}.jpg")
            Image.fromarray(mask).save(folder / source / "masks" / f"{name}.png")
    return folder


def order(suite: Path, folder: Path, **more: Any) -> Order:
    folder.mkdir(exist_ok=True)
    tiny = {"epochs": 2, "batch": 4, "pixels": 32, "size": "S", "device": "cpu", "slicing": [1, 1], "arm": "thickness1"}
    return Order(**{"suite": str(suite), "folder": str(folder), "data": "isic2017", **tiny, **more})


def test_the_split_is_seeded_and_polyps_are_tested_on_the_benchmarks_images(suite: Path) -> None:
    skin = split_of(suite, "isic2017")
    assert skin == split_of(suite, "isic2017")
    assert (len(skin.train), len(skin.tests["isic2017"])) == (7, 3)
    assert set(skin.train) | set(skin.tests["isic2017"]) == {("isic2017", f"ISIC_{i}") for i in range(10)}
    held_out = skin.for_search()
    assert sorted(held_out.train + held_out.tests["search"]) == sorted(skin.train)
    polyps = split_of(suite, "polyps")
    assert [name for _, name in polyps.tests["kvasir"]] == POLYPS[:2]
    assert {name for source, name in polyps.train if source == "kvasir"} == set(POLYPS[2:])
    assert not {case for cases in polyps.tests.values() for case in cases} & set(polyps.train)
    with pytest.raises(ValueError, match=r"has no \.jpg images; give the folder of the suite"):
        split_of(suite / "isic2017", "isic2017")


def test_images_are_stretched_and_turned_together_with_their_masks(suite: Path) -> None:
    images = Images.read(suite, split_of(suite, "isic2017").train, 32, torch.device("cpu"))
    pixels, masks = images.batch(torch.arange(7))
    assert pixels.amin((1, 2, 3)).tolist() == [0.0] * 7
    assert pixels.amax((1, 2, 3)).tolist() == [255.0] * 7
    both = masks.repeat(20, 3, 1, 1)
    turned, moved = augmented(both, masks.repeat(20, 1, 1, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned[:, :1], moved)
    # without a rotation, which half of the images have none of, an image is one of four flips of itself
    source = masks.repeat(20, 1, 1, 1)
    flips = [source, source.flip(2), source.flip(3), source.flip(2, 3)]
    same = torch.stack([(moved == flip).flatten(1).all(1) for flip in flips])
    assert 0.35 < same.any(0).float().mean() < 0.65
    assert (same.sum(1) > 5).all()


def test_rate_loss_and_metrics_are_the_published_ones() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-5)
    for epoch in range(160):
        assert learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        schedule.step()
    assert [lowest_rate_epoch(done) for done in (2, 51, 60, 300)] == [2, 51, 51, 251]
    logits = torch.tensor([[[[0.0, 100.0], [-100.0, -100.0]]]])
    truth = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    # cross-entropies log 2, 0, 100, 0; intersection 1.5, sums 1.5 and 3
    assert losses(logits, truth).item() == pytest.approx((math.log(2) + 100) / 4 + 1 - 4 / 5.5)
    found = count(logits, truth)
    assert found == Counts(tp=2, fp=0, fn=1, tn=1)
    expected = {"miou": 200 / 3, "dsc": 80.0, "acc": 75.0, "spe": 100.0, "sen": 200 / 3}
    assert pooled(found) == pytest.approx(expected)


def test_a_training_that_was_stopped_ends_as_one_that_was_not(suite: Path, tmp_path: Path) -> None:
    whole = Training(order(suite, tmp_path / "whole"))
    assert whole.run(Notes(tmp_path / "whole" / "notes.json"))
    first = Training(order(suite, tmp_path / "parts", epochs=1))
    assert first.run(Notes(tmp_path / "parts" / "notes.json"))
    second = Training(order(suite, tmp_path / "parts"))
    assert len(second.history) == 1
    assert second.run(Notes(tmp_path / "parts" / "notes.json"))
    for one, other in zip(whole.history, second.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[key]), key
    late = Training(order(suite, tmp_path / "late", until=time.time() - 1))
    assert not late.run(Notes(tmp_path / "late" / "notes.json"))
    with pytest.raises(ValueError, match="move it away"):
        Training(replace(order(suite, tmp_path / "parts"), batch=2))


def test_a_training_that_diverges_ends_and_its_checkpoint_is_from_before(suite: Path, tmp_path: Path) -> None:
    first = Training(order(suite, tmp_path / "run", epochs=1))
    assert first.run(Notes(tmp_path / "run" / "notes.json"))
    second = Training(order(suite, tmp_path / "run"))
    with torch.no_grad():
        next(second.network.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="diverged: the mean loss of epoch 2 is nan"):
        second.run(Notes(tmp_path / "run" / "notes.json"))
    assert len(Training(order(suite, tmp_path / "run")).history) == 1


def test_the_supernets_search_gives_a_slicing_that_the_network_takes(suite: Path, tmp_path: Path) -> None:
    training = Training(order(suite, tmp_path / "supernet", arm="supernet", slicing=None, epochs=1))
    assert list(training.tests) == ["search"]
    training.run(Notes(tmp_path / "supernet" / "notes.json"))
    notes = Notes(tmp_path / "supernet" / "notes.json")
    found = search(training, notes, SearchSettings(population=2, generations=1))
    assert found is not None
    assert found["evaluations"] == 4
    (row,) = paper.rows_of(training.order, "run", {**notes.content, **training.facts(), **found})
    searched = order(suite, tmp_path, arm="searched", slicing=json.loads(row["slicing"]))
    assert build(searched).get_slicing() == found["slicing"]  # type: ignore[operator]


def test_other_arms_are_the_recommended_network_and_nnunets(suite: Path, tmp_path: Path) -> None:
    ours = build(order(suite, tmp_path, arm="recommended", slicing=None))
    assert isinstance(ours, SliceMambaResidualUNet)
    theirs = build(order(suite, tmp_path, arm="nnunet", slicing=None))
    assert theirs(torch.zeros(1, 3, 32, 32)).shape == ours(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_rows_have_the_last_epoch_and_the_one_with_the_least_loss_beside_the_published_figures(
    suite: Path, tmp_path: Path
) -> None:
    def after(loss: float, tp: int) -> dict[str, Any]:
        return {"seconds": 2.0, "tests": {"isic2017": {"loss": loss, "tp": tp, "fp": 0, "fn": 100 - tp, "tn": 100}}}

    history = [after(0.5, 50), after(0.2, 80), after(0.3, 60)]
    assert best_epoch(history, "isic2017") == 2
    notes = {"epochs": history, "cases": {"train": 7, "test": {"isic2017": 3}}}
    (row,) = paper.rows_of(order(suite, tmp_path), "run", notes)
    assert (row["dsc"], row["chosen_dsc"], row["chosen_epoch"]) == pytest.approx((75.0, 800 / 9, 2))
    results.write("paper", [{**row, "state": "finished"}], tmp_path)
    text = paper.table(results.read("paper", tmp_path))
    assert "| the paper's network, thickness 1: VM-UNet's scan | paper's, 2 epochs | 1 | 60.00 | 75.00 |" in text
    assert "| SliceMamba | as published, pretrained | - | 81.70 | 89.93 |" in text
    assert "| nnU-Net's default network | paper's | not trained |" in text


def test_nnunets_protocol_has_the_same_cases_and_the_same_metrics(suite: Path, tmp_path: Path) -> None:
    lay_out(suite, tmp_path / "sets")
    split = json.loads((tmp_path / "sets" / "polyps" / "split.json").read_text())
    assert len(split["train"]) == len(split_of(suite, "polyps").train)
    assert all(
        (tmp_path / "sets" / "polyps" / "images" / f"{name}.jpg").is_file() for name in (*split["train"], *split["val"])
    )
    metrics = {"1": {"TP": 3, "FP": 1, "FN": 2, "TN": 4}}
    cases = [{"prediction_file": f"x/{name}.png", "metrics": metrics} for name in split["val"]]
    file = tmp_path / "polyps-fold0-res-s3-adamw-20x250-2.json"
    file.write_text(json.dumps({"metric_per_case": cases}))
    first, second = paper.rows_of_summary(file, suite)
    assert (first["test"], first["arm"], first["repeat"], first["cases"]) == ("kvasir", "res-s3-adamw", "2", 2)
    assert first["dsc"] == second["dsc"] == pytest.approx(100 * 6 / 9)
