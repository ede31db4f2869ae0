"""Places on this machine for steps at once: a GPU, and a share of the cores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunetv2_slicemamba.common.folders import InputError

EXPORTERS = 8  # nnU-Net's processes that preprocess and write predictions, by default


@dataclass(frozen=True)
class Place:
    """Where a step runs. gpu: as CUDA_VISIBLE_DEVICES names it, None for steps without. cores: numbers of its cores."""

    name: str
    gpu: str | None
    cores: tuple[int, ...]

    def variables(self) -> dict[str, str]:
        """Environment variables of a step that runs here; numbers of processes that the user has set stay."""
        share = len(self.cores)
        loaders, exporters = min(get_allowed_n_proc_DA(), share), min(EXPORTERS, share)
        numbers = {"nnUNet_n_proc_DA": str(loaders), "nnUNet_def_n_proc": str(exporters)}
        chosen = {name: os.environ.get(name, value) for name, value in numbers.items()}
        return chosen if self.gpu is None else {**chosen, "CUDA_VISIBLE_DEVICES": self.gpu}


def places_for(device: str, gpus: int | None, per_gpu: int, at_once: int | None) -> list[Place]:
    """Places for steps at once; none where the steps are to run in a row.

    device: cuda, cpu or mps. gpus, per_gpu, at_once: options of `slicemamba run`. Raises InputError for options that
    do not go together, for more GPUs than there are, and on Windows, where submitit does not work.
    """
    if gpus is None and at_once is None:
        if per_gpu != 1:
            raise InputError(f"--per-gpu {per_gpu} needs --gpus: give the number of GPUs, too")
        return []
    if os.name == "nt":
        raise InputError("--gpus and --at-once need Linux or macOS; leave them out to run the folds in a row")
    if device == "cuda":
        if gpus is None:
            raise InputError(f"--at-once {at_once} is for steps without a GPU; give --gpus 1 --per-gpu {at_once}")
        import torch  # which a job of a cluster that asks for its share of the cores need not load

        there = torch.cuda.device_count()
        if gpus > there:
            raise InputError(f"--gpus is {gpus}; give at most {there}: no more are visible (CUDA_VISIBLE_DEVICES)")
    elif gpus is not None:
        raise InputError(f"--gpus {gpus} needs -device cuda, and this run is on {device}; give --at-once {gpus}")
    if gpus is not None and at_once is not None:
        raise InputError(f"--gpus {gpus} and --at-once {at_once} exclude each other; give one of them")
    return places_without_gpu(at_once or 1) if gpus is None else places_on_gpus(gpus, per_gpu)


def places_without_gpu(n: int) -> list[Place]:
    """`n` places with an equal share of the cores each."""
    shares = shares_of(usable_cores(), n)
    return [Place(f"cores {_range(share)}", None, share) for share in shares]


def places_on_gpus(gpus: int, per_gpu: int) -> list[Place]:
    """`per_gpu` places on each of the first GPUs that CUDA_VISIBLE_DEVICES leaves, with equal shares of the cores.

    The first places are on different GPUs.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = visible[:gpus] if visible else [str(number) for number in range(gpus)]
    shares = shares_of(usable_cores(), gpus * per_gpu)
    return [
        Place(f"GPU {name.strip()}", name.strip(), share) for name, share in zip(names * per_gpu, shares, strict=True)
    ]


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares_of(cores: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """`n` shares of the cores, neighbours together; where there are fewer cores than shares, one core for several."""
    if len(cores) < n:
        return [(cores[place % len(cores)],) for place in range(n)]
    return [tuple(cores[place * len(cores) // n : (place + 1) * len(cores) // n]) for place in range(n)]


def _range(cores: Sequence[int]) -> str:
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]}-{cores[-1]}"
