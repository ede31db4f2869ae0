"""The published search's files give their best architecture, and nothing in them is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.search import choose_slicing
from nnunetv2_slicemamba.slicing.published_search import read_published_search

CANDIDATES = ((2, 2), (2, 4), (4, 2), (4, 4))
GOOD, BETTER, UNSEEN = (0, 1, 2, 3, 0), (3, 1, 2, 0, 0), (1, 1, 1, 1, 1)


def written(path: Path, table: dict[Any, Any]) -> Path:
    top = {10: list(table), 50: list(table)}
    torch.save(
        {"memory": [list(table)], "candidates": list(table), "vis_dict": table, "keep_top_k": top, "epoch": 20}, path
    )
    return path


def record(fitness: Any) -> dict[str, Any]:
    return {"miou_with_dice": fitness, "visited": True}


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0.7, 0.8),
        (np.float64(0.7), np.float64(0.8)),
        (np.float32(0.7), np.float32(0.8)),
        ((0.7, 0.9), (0.8, 0.7)),
        ((np.float64(0.7), np.float64(0.9)), (np.float64(0.7), np.float64(0.95))),
        (torch.tensor(0.7), torch.tensor(0.8)),
    ],
    ids=["float", "float64", "float32", "pair", "pair of float64", "tensor"],
)
def test_the_best_architecture_wins_whatever_kind_of_number_its_fitness_is(tmp_path: Path, low: Any, high: Any) -> None:
    file = written(tmp_path / "checkpoint.pth.tar", {GOOD: record(low), BETTER: record(high), UNSEEN: {}})
    choice = choose_slicing(str(file), 5, 2, CANDIDATES)
    assert choice.slicing == ((4, 4), (2, 4), (4, 2), (2, 2), (2, 2))
    assert choice.how_chosen == "file"
    assert choice.details["source"]["evaluated"] == 2
    expected = [float(value) for value in (high if isinstance(high, tuple) else (high,))]
    assert choice.details["source"]["miou_with_dice"] == expected


def test_the_winner_alone_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "arch.pkl").write_bytes(pickle.dumps(GOOD))
    assert read_published_search(tmp_path / "arch.pkl").slicing == tuple(CANDIDATES[i] for i in GOOD)


class Bomb:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_not_run(tmp_path: Path, save: Any) -> None:
    save({"vis_dict": {GOOD: Bomb(tmp_path / "victim")}}, tmp_path / "file")
    with pytest.raises(InputError, match=r"is not read: .*\(it names .*getattr|Path|touch"):
        choose_slicing(str(tmp_path / "file"), 5, 2, CANDIDATES)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "has no vis_dict, but model"),
        ({"vis_dict": {GOOD: {}}}, "1 architectures, but a miou_with_dice for none"),
        ({"vis_dict": {(0, 9): record(1.0)}}, "index 9, the published candidates are 0 to 3"),
        ({"vis_dict": {"x": record(1.0)}}, "'x' is no architecture"),
        ({"vis_dict": {GOOD: record("high")}}, "'high', it must be one number or two"),
        ({"vis_dict": {(0, 1): record(0.5)}}, "has 2 blocks, this network has 5"),
    ],
)
def test_another_file_is_refused_by_what_is_wrong_with_it(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "file")
    with pytest.raises(InputError, match=message):
        choose_slicing(str(tmp_path / "file"), 5, 2, CANDIDATES)


def test_a_3d_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "arch.pkl").write_bytes(pickle.dumps(GOOD))
    with pytest.raises(InputError, match="the published search, which is 2D"):
        choose_slicing(str(tmp_path / "arch.pkl"), 5, 3, CANDIDATES)


def test_half_a_download_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "checkpoint.pth.tar", {GOOD: record(0.5)})
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match="is not valid|no JSON|cannot be read|is not read|codec"):
        choose_slicing(str(file), 5, 2, CANDIDATES)
