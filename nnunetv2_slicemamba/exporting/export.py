"""Export of a network to a file, and the comparison of both on real patches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunetv2_slicemamba.common.json_files import write_json
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.outputs import is_free, not_ours, record_of, require_output, require_record
from nnunetv2_slicemamba.common.provenance import installed_versions, now
from nnunetv2_slicemamba.common.whole_file import replacing
from nnunetv2_slicemamba.exporting.fold_network import FoldNetwork
from nnunetv2_slicemamba.exporting.formats import Format, quietly

_RECORD = JsonKind("the record of an export", {"format": str, "bytes": int, "bytes_before?": int}, "Move it away")
# of the largest logit: float32 sums in another order, over a network of tens of blocks
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parity:
    """Agreement of the file with the network on `patches` patches of `case`.

    largest_difference: of logits. relative_difference: that, over the largest logit. same_labels: share of voxels with
    the same largest logit. network_seconds, file_seconds: per patch on this CPU, after a first run.
    """

    case: str
    patches: int
    largest_difference: float
    relative_difference: float
    same_labels: float
    network_seconds: float
    file_seconds: float

    @property
    def holds(self) -> bool:
        """True if the logits differ by rounding only."""
        return self.relative_difference <= TOLERANCE


def export(source: FoldNetwork, format: Format, file: Path) -> Parity:
    """Writes the network in `format` to `file`, runs the file on the patches and compares.

    The file takes (1, channels, *patch) float32 and gives logits (1, classes, *patch); the sizes are fixed. It only
    appears once it is complete, and FILE.json then says that it was written here.
    """
    example = source.patches[:1]
    with torch.no_grad(), replacing(file) as temporary, quietly():
        source.network(example)  # makes the scan orders, which are constants in the file
        format.write(source.network, example, temporary)
        sizes = {"bytes": temporary.stat().st_size, "bytes_before": file.stat().st_size if file.exists() else 0}
        write_json(record_of(file), {"format": format.name, **sizes})
    with torch.no_grad():
        return compare(source, format.load(file))


def compare(source: FoldNetwork, run: Callable[[Tensor], Tensor]) -> Parity:
    """Agreement of `run`, logits from one patch, with the network on each patch."""
    expected, network_seconds = _timed(source.network, source.patches)
    found, file_seconds = _timed(run, source.patches)
    difference = (expected - found).abs().max().item()
    return Parity(
        source.case,
        len(source.patches),
        difference,
        difference / expected.abs().max().item(),
        (expected.argmax(1) == found.argmax(1)).float().mean().item(),
        network_seconds,
        file_seconds,
    )


def _timed(run: Callable[[Tensor], Tensor], patches: Tensor) -> tuple[Tensor, float]:
    run(patches[:1])
    start = time.perf_counter()
    logits = torch.cat([run(patch) for patch in patches.split(1)])
    return logits, (time.perf_counter() - start) / len(patches)


def write_record(file: Path, source: FoldNetwork, format: Format, parity: Parity, **more: Any) -> Path:
    """FILE.json beside the exported file: parity, slicing, the checkpoint's hash, versions. Returns its path."""
    content = {
        "format": format.name,
        **more,
        "input": [1, *source.patches.shape[1:]],
        "slicing": source.network.get_slicing(),
        "checkpoint": str(source.checkpoint),
        "checkpoint_sha256": source.checkpoint_sha256,
        "bytes": file.stat().st_size,
        "parity": {**asdict(parity), "tolerance": TOLERANCE, "holds": parity.holds},
        "versions": installed_versions(),
        "created": now(),
    }
    write_json(record_of(file), content)
    return record_of(file)


def require_place(file: Path, suffix: str) -> None:
    """Raises InputError where an export to `file` would replace a file, or a record of it, that is not an export's."""
    require_output(file, "-o", suffix)
    require_record(file, _RECORD)
    if is_free(file):
        return
    known = _RECORD.read_if_there(record_of(file)) or {"bytes": 0}
    # a kill may have left the new record beside the file of the export before
    if file.stat().st_size not in (known["bytes"], known.get("bytes_before")):
        raise not_ours(file, "-o")
