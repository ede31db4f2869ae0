"""Slicings that a user names: 2x4, no-scan, no-block, random:SEED, consensus, or a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.search.choosing.consensus import consensus
from nnunetv2_slicemamba.search.choosing.pareto import read_front_entry
from nnunetv2_slicemamba.search.records import History
from nnunetv2_slicemamba.slicing.candidate_sets import along_one_axis, names_one_axis
from nnunetv2_slicemamba.slicing.candidates import (
    NAMED,
    Architecture,
    Candidate,
    Slicing,
    axes_of,
    candidate_from_json,
    check_thickness,
)
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.file import read_slicing_file

Histories = Mapping[int | str, History]


def choose_slicing(
    value: str,
    n_blocks: int,
    n_dims: int,
    candidates: Sequence[Sequence[int] | str],
    histories: Callable[[], Histories] | None = None,
) -> SlicingChoice:
    """The slicing that a user asks for without a search.

    value: "2x4" or, in 3D, "2x4x2", the same thickness (tokens per axis) in every block; "4@h" (in 3D "2x4@d" too),
    "no-scan" or "no-block", in every block too; "random:SEED", a candidate drawn uniformly for every block;
    "consensus", the architecture that the searches of all folds agree on best; the path of a slicing file, or of a
    result file of the published search; or that of a pareto.json with ":N", its N-th entry. candidates: of the
    architecture's indices.
    histories: called for a consensus only, gives the evaluations of each fold's search. Raises ValueError
    (SlicingFileError for a file) naming the value, the rule and the remedy.
    """
    offered = tuple(map(candidate_from_json, candidates))
    if names_one_axis(value):
        return _everywhere(along_one_axis(value, n_dims), n_blocks, offered)
    if value in NAMED:
        return _everywhere(value, n_blocks, offered)
    if re.fullmatch(r"\d+(x\d+)*", value):
        return _fixed(value, n_blocks, n_dims, offered)
    if value == "random" or value.startswith("random:"):
        return _random(value, n_blocks, offered)
    if value == "consensus":
        return _consensus(n_blocks, offered, histories)
    if of_front := re.fullmatch(r"(.+\.json):(\d+)", value):
        return _front_entry(Path(of_front[1]), int(of_front[2]), n_blocks, n_dims)
    return _file(value, n_blocks, n_dims)


def _fixed(value: str, n_blocks: int, n_dims: int, candidates: Slicing) -> SlicingChoice:
    thickness = tuple(int(part) for part in value.split("x"))
    if len(thickness) != n_dims:
        example = "x".join(["2", "4", "2"][:n_dims])
        raise ValueError(
            f"'{value}' has {len(thickness)} numbers, this network has {n_dims} axes; give one thickness per axis, "
            f"for example {example}"
        )
    check_thickness(thickness, n_dims, f"'{value}'")
    return _everywhere(thickness, n_blocks, candidates)


def _everywhere(candidate: Candidate, n_blocks: int, candidates: Slicing) -> SlicingChoice:
    architecture = (candidates.index(candidate),) * n_blocks if candidate in candidates else None
    return SlicingChoice((candidate,) * n_blocks, "fixed", architecture)


def _random(value: str, n_blocks: int, candidates: Slicing) -> SlicingChoice:
    seed_text = value.removeprefix("random").removeprefix(":")
    if not re.fullmatch(r"[0-9]+", seed_text):
        raise ValueError(f"'{value}' has no seed, which must be a whole number of at least 0; for example random:0")
    seed = int(seed_text)
    drawn = np.random.default_rng(seed).integers(0, len(candidates), size=n_blocks)
    architecture = tuple(drawn.tolist())
    return SlicingChoice(_slicing(architecture, candidates), "random", architecture, seed=seed)


def _consensus(n_blocks: int, candidates: Slicing, histories: Callable[[], Histories] | None) -> SlicingChoice:
    if histories is None:
        raise ValueError("a consensus needs the folds' searches; run `slicemamba search` for two folds or more")
    agreed = consensus(histories(), (len(candidates),) * n_blocks)
    return SlicingChoice(
        _slicing(agreed.architecture, candidates),
        "consensus",
        agreed.architecture,
        fitness=agreed.fitness,
        details={"rule": agreed.rule, "folds": list(agreed.folds), "shared_architectures": agreed.n_shared},
    )


def _front_entry(file: Path, number: int, n_blocks: int, n_dims: int) -> SlicingChoice:
    slicing, entry = read_front_entry(file, number)
    if len(slicing) != n_blocks or axes_of(slicing) not in (n_dims, None):
        raise ValueError(
            f"entry {number} of {file} has {count(len(slicing), 'block')}, this network has {n_blocks} with {n_dims} "
            "axes; was it searched with these plans?"
        )
    return SlicingChoice(slicing, "file", details={"file": str(file), "entry": number, "source": entry})


def _file(value: str, n_blocks: int, n_dims: int) -> SlicingChoice:
    path = Path(value)
    if not path.is_file():
        example, bands = ("2x4", "4@h") if n_dims == 2 else ("2x4x2", "4@h or 2x4@d")
        raise ValueError(
            f"'{value}' is neither a thickness such as {example}, nor bands along one axis such as {bands}, nor "
            f"random:SEED, nor consensus, nor a file that exists, nor {' or '.join(NAMED)}"
        )
    from nnunetv2_slicemamba.slicing.published_search import is_published_search, read_for

    if is_published_search(path):
        slicing, details = read_for(path, n_blocks, n_dims)
        return SlicingChoice(slicing, "file", details=details)
    content = read_slicing_file(path)
    content.check_fits(n_blocks, n_dims, path)
    chosen = content.choice
    source = {
        "how_chosen": chosen.how_chosen,
        "dataset": content.dataset,
        "configuration": content.configuration,
        "plans_name": content.plans_name,
        "fold": content.fold,
        "fitness": chosen.fitness,
        "created": content.created,
    }
    # Fitness and candidate indices are the other file's: its candidates need not be this supernet's.
    return SlicingChoice(chosen.slicing, "file", seed=chosen.seed, details={"file": str(path), "source": source})


def _slicing(architecture: Architecture, candidates: Slicing) -> Slicing:
    return tuple(candidates[index] for index in architecture)
