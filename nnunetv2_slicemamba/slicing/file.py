"""best_slicing.json, the result of a search: its content, and how it is written and read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.json_reading import JsonFileError, JsonKind
from nnunetv2_slicemamba.common.provenance import installed_versions, now
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.slicing.candidate_sets import are_same
from nnunetv2_slicemamba.slicing.candidates import (
    Architecture,
    Slicing,
    axes_of,
    candidate_from_json,
    check_slicing,
    listed,
)
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn

SCHEMA_VERSION = 1
AMONG_CANDIDATES = ("search", "random", "consensus")  # ways to choose that know the candidates
_SLICING = JsonKind("a slicing", dict, "Make it again with `slicemamba search` or `slicemamba slicing`")


class SlicingFileError(ValueError):
    """Slicing file that cannot be read, or does not fit."""


@dataclass(frozen=True)
class SlicingFile:
    """A choice and where it is from. Written with write_slicing_file, read with read_slicing_file.

    candidates: what `choice.architecture` indexes; may be empty. fitness_definition: what fitness means.
    supernet_checkpoint_sha256, plans_sha256: 64 hexadecimal digits, or None where no supernet took part. versions:
    of the packages. created: ISO 8601, UTC. measured_on: the cases behind the fitness of a search, None where no search
    of this fold measured it. complete: False for the best so far of a search that goes on.
    Raises ValueError naming the value and the rule.
    """

    choice: SlicingChoice
    candidates: Slicing
    fitness_definition: str | None
    dataset: str
    configuration: str
    plans_name: str
    fold: int | str
    supernet_checkpoint_sha256: str | None
    plans_sha256: str | None
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    created: str = field(default_factory=now)
    schema_version: int = SCHEMA_VERSION
    measured_on: MeasuredOn | None = None
    complete: bool = True

    def __post_init__(self) -> None:
        if self.candidates:
            check_slicing(self.candidates, "candidate")
        architecture = self.choice.architecture
        if architecture is None:
            return
        for block, (index, chosen) in enumerate(zip(architecture, self.choice.slicing, strict=True)):
            if not 0 <= index < len(self.candidates):
                raise ValueError(f"block {block} has candidate {index}, there are {len(self.candidates)} candidates")
            if self.candidates[index] != chosen:
                raise ValueError(
                    f"block {block} has candidate {index}, which is {self.candidates[index]}, but thickness {chosen}"
                )

    @property
    def slicing(self) -> Slicing:
        """What every block does: a thickness in tokens, "no-scan" or "no-block"."""
        return self.choice.slicing

    def check_fits(self, n_blocks: int, n_dims: int, file: Path) -> None:
        """Raises SlicingFileError, naming both numbers, unless the slicing is of n_blocks blocks with n_dims axes.

        file: which holds it.
        """
        why = (
            f"it was chosen for configuration '{self.configuration}' of the plans '{self.plans_name}', which may have "
            "been replaced since. Restore or name those plans, or choose anew ('slicemamba slicing --set VALUE', "
            "'slicemamba search')"
        )
        if len(self.slicing) != n_blocks:
            raise SlicingFileError(
                f"the slicing file {file} has {count(len(self.slicing), 'block')}, this network has {n_blocks}: {why}"
            )
        axes = axes_of(self.slicing)
        if axes not in (n_dims, None):
            raise SlicingFileError(
                f"the slicing file {file} has thicknesses of {axes} axes, this network has {n_dims}: {why}"
            )

    def check_candidates(self, planned: Slicing) -> None:
        """Raises SlicingFileError, naming both sets, if the slicing was chosen among others than `planned`.

        One that was set by hand was chosen among none.
        """
        if self.choice.how_chosen not in AMONG_CANDIDATES or are_same(self.candidates, planned):
            return
        raise SlicingFileError(
            f"the slicing file was chosen ({self.choice.how_chosen}) among the candidates {listed(self.candidates)}, "
            f"the plans have {listed(planned)}; restore the plans, choose anew ('slicemamba search'), or take the file "
            "over as it is ('slicemamba slicing --set FILE')"
        )


def write_slicing_file(content: SlicingFile, path: str | Path) -> None:
    """Writes plain JSON with a line for each entry; a reader finds the old file or the whole new one."""
    nested = plain_json(dataclasses.asdict(content))
    flat = {"schema_version": nested.pop("schema_version"), **nested.pop("choice"), **nested}
    # a slicing on 22 times 4 lines would be hard to read
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in flat.items())
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_slicing_file(path: str | Path) -> SlicingFile:
    """Validated content of a slicing file. Raises SlicingFileError naming the file, what is wrong and the remedy."""
    path = Path(path)
    try:
        flat = _SLICING.read(path)
    except JsonFileError as error:
        raise SlicingFileError(f"the slicing file {error}") from error
    version = flat.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SlicingFileError(
            f"the slicing file {path} has schema version {version}, this package reads up to {SCHEMA_VERSION}; "
            "update nnunetv2-slicemamba"
        )
    try:
        return _from_flat(flat)
    except (ValueError, TypeError) as error:
        raise SlicingFileError(f"the slicing file {path} is not valid: {error}. {_SLICING.remedy}") from error


def _from_flat(flat: dict[str, Any]) -> SlicingFile:
    missing = [key for key in _RULES if key not in flat]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for key, (holds, rule) in _RULES.items():
        if not holds(flat[key]):
            raise ValueError(f"{key} is {json.dumps(flat[key])[:80]}, it must be {rule}")
    for key, (holds, rule) in _LATER_RULES.items():
        if key in flat and not holds(flat[key]):
            raise ValueError(f"{key} is {json.dumps(flat[key])[:80]}, it must be {rule}")
    known = {key: flat[key] for key in _RULES}
    measured_on = flat.get("measured_on", {} if flat["how_chosen"] == "search" else None)
    choice = SlicingChoice(
        slicing=_slicing(known.pop("slicing")),
        architecture=_architecture(known.pop("architecture")),
        **{key: known.pop(key) for key in ("how_chosen", "fitness", "seed", "details")},
    )
    return SlicingFile(
        choice=choice,
        candidates=_slicing(known.pop("candidates")),
        measured_on=None if measured_on is None else MeasuredOn(**measured_on),
        complete=flat.get("complete", True),
        **known,
    )


def _slicing(values: list[list[int] | str]) -> Slicing:
    return tuple(map(candidate_from_json, values))


def _architecture(indices: list[int] | None) -> Architecture | None:
    return None if indices is None else tuple(indices)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_hash(value: Any) -> bool:
    return _is_text(value) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(_is_whole(item) for item in value)


def _is_slicing(value: Any) -> bool:
    return isinstance(value, list) and all(_is_list(item) or _is_text(item) for item in value)


def _is_fold(value: Any) -> bool:
    return _is_text(value) or (_is_whole(value) and value >= 0)


def _is_measured_on(value: Any) -> bool:
    return (
        _is_object(value)
        and set(value) == {"kind", "number", "sha256"}
        and _is_text(value["kind"])
        and _or_null(_is_whole)(value["number"])
        and _or_null(_is_hash)(value["sha256"])
    )


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


# Entry: what holds for its JSON value, in code and in words.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schema_version": (lambda value: _is_whole(value) and value == SCHEMA_VERSION, f"{SCHEMA_VERSION}"),
    "slicing": (_is_slicing, "a list with a list of whole numbers, or a text, for every block"),
    "how_chosen": (_is_text, "a text"),
    "architecture": (_or_null(_is_list), "a list of candidate indices, or null"),
    "fitness": (_or_null(_is_number), "a number, or null"),
    "seed": (_or_null(_is_whole), "a whole number, or null"),
    "details": (_is_object, "an object"),
    "candidates": (_is_slicing, "a list with a list of whole numbers, or a text, for every candidate"),
    "fitness_definition": (_or_null(_is_text), "a text, or null"),
    "dataset": (_is_text, "a text"),
    "configuration": (_is_text, "a text"),
    "plans_name": (_is_text, "a text"),
    "fold": (_is_fold, "a fold number, or a text such as all"),
    "supernet_checkpoint_sha256": (_or_null(_is_hash), "64 hexadecimal digits, or null"),
    "plans_sha256": (_or_null(_is_hash), "64 hexadecimal digits, or null"),
    "versions": (_is_object, "an object"),
    "created": (_is_text, "a text"),
}

# Entries that older files lack: their searches measured on validation cases and were complete.
_LATER_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "measured_on": (_or_null(_is_measured_on), "an object with kind, number and sha256, or null"),
    "complete": (lambda value: isinstance(value, bool), "true or false"),
}
