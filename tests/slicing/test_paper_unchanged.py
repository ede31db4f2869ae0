"""With the paper's candidates, supernet, proposals and best_slicing.json are those of before there were others.

The golden file was written by `python tests/slicing/test_paper_unchanged.py` before candidates could be chosen.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.search import (
    Evaluation,
    Fingerprint,
    SearchSettings,
    SlicingFile,
    choose_slicing,
    open_ledger,
    run_search,
    write_slicing_file,
)
from nnunetv2_slicemamba.search.run import chosen_by_search
from nnunetv2_slicemamba.slicing.candidates import default_candidates
from nnunetv2_slicemamba.trainers.supernet import path_generator

GOLDEN = Path(__file__).parents[1] / "golden" / "paper_search.json"
BLOCKS = 22
SHAPES = {2: [[4, 4], [2, 2]], 3: [[1, 4, 4], [2, 2, 2]]}


def fitness_of(architecture: tuple[int, ...]) -> Evaluation:
    """Made up, with interactions between blocks."""
    return Evaluation(sum((7 * i + 3 * gene * (i % 5)) % 11 for i, gene in enumerate(architecture)) / 256)


def searched(n_dims: int, folder: Path) -> dict[str, Any]:
    """A search of a made-up fitness: what it proposed, and its slicing file but for versions and times."""
    candidates = default_candidates(n_dims)
    settings = SearchSettings(population=8, generations=3, parents=4, seed=5)
    names = ("Dataset001_Test", "SliceMambaSupernetTrainer", "nnUNetSliceMambaPlans", "2d", 0)
    fingerprint = Fingerprint(*names, "c" * 64, "p" * 64, BLOCKS, candidates, settings)
    with open_ledger(folder / f"study{n_dims}.db", fingerprint) as ledger:
        result = run_search(fitness_of, settings, ledger, progress=False)
        choice = chosen_by_search(fingerprint, result, ledger, None)
    del choice.details["ledger"]  # type: ignore[attr-defined]
    files = {"search": choice}
    files |= {
        value: choose_slicing(value, BLOCKS, n_dims, candidates) for value in ("x".join("2" * n_dims), "random:3")
    }
    texts = {}
    for name, one in files.items():
        file = folder / "best_slicing.json"
        place = {"dataset": names[0], "configuration": "2d", "plans_name": names[2], "fold": 0}
        content = SlicingFile(one, candidates, "a fitness", **place, **HASHES, versions={}, created="then")  # type: ignore[arg-type]
        write_slicing_file(content, file)
        texts[name] = file.read_text()
    return {
        "fingerprint": fingerprint.as_dict(),
        "proposals": [[list(record.architecture), record.origin] for record in result.records],
        "files": texts,
    }


HASHES = {"supernet_checkpoint_sha256": "c" * 64, "plans_sha256": "a" * 64}


def supernet_of(n_dims: int) -> dict[str, Any]:
    """A supernet's weights as drawn, in numbers, and the paths of its training."""
    torch.manual_seed(0)
    shape = (2, 3, 2, [8, 16], SHAPES[n_dims], [2, 1], [1, 1])
    network = SliceMambaSupernet(*shape, d_state=4, drop_path_rate=0.0)
    state = network.state_dict()
    draws = (*range(12), 2**40)
    return {
        "candidates": [list(one) for one in network.candidates],
        "weights": {name: [list(value.shape), float(value.double().abs().sum())] for name, value in state.items()},
        "paths": [list(network.sample_architecture(path_generator(12345, draw))) for draw in draws],
    }


def everything(folder: Path) -> dict[str, Any]:
    return {f"{n}d": {"search": searched(n, folder), "supernet": supernet_of(n)} for n in (2, 3)}


def test_supernet_proposals_and_slicing_files_are_those_of_before(tmp_path: Path) -> None:
    found, before = everything(tmp_path), json.loads(GOLDEN.read_text())
    for kind, expected in before.items():
        own = found[kind]
        assert own["search"] == expected["search"]
        assert own["supernet"]["candidates"] == expected["supernet"]["candidates"]
        assert own["supernet"]["paths"] == expected["supernet"]["paths"]
        weights = own["supernet"]["weights"]
        assert list(weights) == list(expected["supernet"]["weights"])
        for name, (shape, total) in expected["supernet"]["weights"].items():
            assert weights[name] == [shape, pytest.approx(total, rel=1e-5)], name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(everything(Path(folder)), separators=(",", ":")) + "\n")
