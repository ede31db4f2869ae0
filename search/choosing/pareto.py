"""The Pareto front between fitness and cost, as a file and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION
from nnunetv2_slicemamba.search.objectives import Cost
from nnunetv2_slicemamba.search.proposals.ranking import pareto_front
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.slicing.candidates import Slicing, candidate_from_json, candidate_text

if TYPE_CHECKING:
    from rich.table import Table

PARETO_FILE = "pareto.json"
SCHEMA_VERSION = 1
_PARETO = JsonKind(
    "a Pareto front",
    {"front": [{"slicing": [([int], str)], "fitness?": (float, None)}]},
    "The search that wrote it writes it again ('slicemamba search')",
)


@dataclass(frozen=True)
class Front:
    """The Pareto front of a search that measured a cost; make one with `of`.

    cost: what was measured. measured_with: how and on what, see cost_measurement. records: of the front, by rising
    cost. chosen: one of them. evaluations, infeasible: how many there were, and how many of them exceed the limit.
    """

    cost: Cost
    measured_with: Mapping[str, str]
    records: tuple[Record, ...]
    chosen: Record
    evaluations: int
    infeasible: int

    @classmethod
    def of(cls, records: Sequence[Record], chosen: Record, cost: Cost, measured_with: Mapping[str, str]) -> Front:
        """The front of `records`, of which `chosen` is the one that the search chose."""
        infeasible = sum(not cost.allows(record.cost) for record in records)
        return cls(cost, measured_with, pareto_front(records, cost), chosen, len(records), infeasible)

    def cost_entry(self) -> dict[str, Any]:
        """The cost of the chosen architecture and what it means, as plain JSON values."""
        return {
            "name": self.cost.name,
            "value": self.chosen.cost,
            "limit": self.cost.limit,
            "minimised": self.cost.minimised,
            **self.measured_with,
        }


def write_front(front: Front, folder: Path, objective: str, candidates: Slicing) -> Path:
    """Writes pareto.json into a fold's slicing_search folder, atomically; returns the file.

    An entry per architecture of the front: candidate indices, slicing, fitness, cost, its place in the search, and
    whether it is the one that best_slicing.json holds.
    """
    head = {
        "schema_version": SCHEMA_VERSION,
        "objective": objective,
        "cost": {key: value for key, value in front.cost_entry().items() if key != "value"},
        "fitness_definition": FITNESS_DEFINITION,
        "candidates": candidates,
        "evaluations": front.evaluations,
        "infeasible": front.infeasible,
    }
    entries = [
        {
            "architecture": record.architecture,
            "slicing": [candidates[index] for index in record.architecture],
            "fitness": record.fitness,
            front.cost.name: record.cost,
            "generation": record.generation,
            "index": record.index,
            "chosen": record is front.chosen,
        }
        for record in front.records
    ]
    plain_head = plain_json(head)
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in plain_head.items()]
    listed = ",\n".join(f"    {json.dumps(plain_json(entry))}" for entry in entries)
    file = folder / PARETO_FILE
    with replacing(file) as temporary:
        temporary.write_text("\n".join(["{", *lines, '  "front": [', listed, "  ]", "}"]) + "\n", encoding="utf-8")
    return file


def read_front_entry(file: Path, number: int) -> tuple[Slicing, dict[str, Any]]:
    """The slicing of entry `number`, from 1, of a pareto.json, and what the file says of it.

    Raises JsonFileError, or ValueError naming the rule and the remedy.
    """
    remedy = f"Give the {PARETO_FILE} of a search with a measured cost, or the file without ':{number}'"
    content = _PARETO.read(file, remedy)
    entries = [(tuple(map(candidate_from_json, entry["slicing"])), entry) for entry in content["front"]]
    if not 1 <= number <= len(entries):
        raise ValueError(
            f"{file} has {len(entries)} entries, there is none numbered {number}; give 1 to {len(entries)}"
        )
    return entries[number - 1]


def front_table(front: Front, candidates: Slicing) -> Table:
    """A row per architecture of the front, numbered as read_front_entry counts them; a star marks the chosen one."""
    from rich.table import Table

    of = f"{front.evaluations} architectures"
    if front.cost.limit is not None:
        of += f", {front.infeasible} of them above {front.cost.flag} {front.cost.limit:g}"
    shown = ", ".join(f"{index}: {candidate_text(one)}" for index, one in enumerate(candidates))
    table = Table(
        title=f"Pareto front of {of}",
        caption=f"*: chosen. Candidates {shown}. Measured with {front.measured_with['device']}",
    )
    table.add_column("entry", justify="right")
    table.add_column("architecture", overflow="fold")
    table.add_column("fitness", justify="right")
    table.add_column(front.cost.title, justify="right")
    for number, record in enumerate(front.records, 1):
        assert record.cost is not None
        mark = f"{'* ' if record is front.chosen else ''}{number}"
        genes = " ".join(map(str, record.architecture))
        table.add_row(mark, genes, f"{record.fitness:.4f}", front.cost.shown(record.cost).rpartition(" ")[0])
    return table
