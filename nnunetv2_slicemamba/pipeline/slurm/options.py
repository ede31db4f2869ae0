"""Options of sbatch, checked before anything is submitted."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.common.console import printable
from nnunetv2_slicemamba.common.folders import FOLDERS, InputError, named_folder
from nnunetv2_slicemamba.pipeline.slurm.client import minutes_of, partitions

_NAMED = ("partition", "time", "account")
# what a run decides itself, and what would have one step run several times
_OURS = {
    *("array", "clusters", "dependency", "error", "export", "input", "job-name", "kill-on-invalid-dep"),
    *("nodes", "no-requeue", "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "open-mode", "output"),
    *("parsable", "requeue", "signal", "test-only", "wait", "wrap"),
}
_ASKS_FOR_GPU = {"gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres"}
LEAST_MINUTES = 3  # a job is told of its end 90 seconds before, or up to a minute earlier
_IN_MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True)
class SlurmOptions:
    """How the jobs of a run are submitted.

    minutes: limit of time of every job. sbatch: options by their long names. search_nodes: nodes of a search's job.
    """

    minutes: int
    sbatch: Mapping[str, str | bool] = field(default_factory=dict)
    search_nodes: int = 1

    @property
    def asks_for_gpu(self) -> bool:
        """Whether an option names GPUs, in place of the one that steps with networks get."""
        return bool(_ASKS_FOR_GPU & set(self.sbatch))


def slurm_options(
    launcher: str,
    partition: str | None,
    time: str | None,
    account: str | None,
    sbatch: Sequence[str],
    search_nodes: int | None = None,
) -> SlurmOptions | None:
    """The options of `slicemamba run --launcher slurm`; None for --launcher local.

    sbatch: NAME=VALUE, or NAME alone. Raises InputError for a launcher that does not exist, options without it, and all
    that `checked_with_slurm` refuses.
    """
    given = {"--partition": partition, "--time": time, "--account": account, "--sbatch": next(iter(sbatch), None)}
    given["--search-nodes"] = None if search_nodes is None else str(search_nodes)
    if launcher not in ("local", "slurm"):
        raise InputError(f"--launcher {launcher!r} does not exist; give local, this machine, or slurm, a cluster")
    if launcher == "local":
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} {value!r} needs --launcher slurm; give that, or leave {name} out")
        return None
    if time is None:
        raise InputError("--launcher slurm needs --time, the longest time of one job, for instance --time 12:00:00")
    minutes = minutes_of(time)
    if minutes is None:
        raise InputError(f"--time {time!r} is no time; give HH:MM:SS, D-HH:MM:SS or minutes, as sbatch takes them")
    if minutes < LEAST_MINUTES:
        raise InputError(f"--time {time!r} is too short; give at least {LEAST_MINUTES} minutes, to save before the end")
    others = dict(map(_read, sbatch))
    for name, value in (("partition", partition), ("account", account)):
        if value is not None:
            others[name] = _checked(f"--{name}", value)
    checked_with_slurm(partition, minutes)
    return SlurmOptions(minutes, others, search_nodes or 1)


def _read(option: str) -> tuple[str, str | bool]:
    """Name and value of an option of sbatch."""
    name, equals, value = option.strip().lstrip("-").partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
        raise InputError(f"--sbatch {option!r} is no long option of sbatch; give NAME=VALUE, such as mem=64G")
    if name in _NAMED:
        raise InputError(f"--sbatch {option!r} has an option of its own: give --{name} {value or 'VALUE'}")
    if name in _OURS:
        raise InputError(f"--sbatch {option!r} is what the run decides for its jobs; leave it out")
    return name, _checked(f"--sbatch {name}", value) if equals else True


def _checked(option: str, value: str) -> str:
    if not value.strip() or printable(value) != value or "\n" in value:
        raise InputError(f"{option} has the value {value!r}; give one line of text")
    return value


def checked_with_slurm(partition: str | None, minutes: int) -> None:
    """Raises InputError without sbatch, for an unknown partition, for one with a shorter limit, and for no default."""
    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            raise InputError(
                f"--launcher slurm needs {program}, which is not on the PATH; call this command on the cluster's login "
                "node, or leave --launcher out to run on this machine"
            )
    there = {one.name: one for one in partitions()}
    names = partition.split(",") if partition else [one.name for one in there.values() if one.is_default]
    if not names:
        raise InputError(f"this cluster has no default partition; give --partition, one of {', '.join(there)}")
    for name in names:
        if name not in there:
            raise InputError(
                f"--partition {name!r} does not exist; give one that sinfo names: {', '.join(there) or 'none'}"
            )
    limits = [there[name].minutes for name in names]
    most = max((limit for limit in limits if limit is not None), default=None)
    if None not in limits and most is not None and minutes > most:
        raise InputError(
            f"--time is {minutes} minutes; partition {', '.join(names)} allows at most {most}: give less, trainings go "
            "on in another job"
        )


def refuse_unshared_folders() -> None:
    """Raises InputError for a folder that other machines cannot see: one in this machine's memory.

    It looks at nnU-Net's folders, this package's and Python's. Whether nodes see other folders, only they can know.
    """
    folders = {f"{name}={folder}": folder for name in FOLDERS if (folder := named_folder(name)) is not None}
    folders["this package's folder"] = Path(__file__).parents[2]
    folders["Python's folder"] = Path(sys.prefix)
    for said, folder in folders.items():
        kind = _file_system(folder)
        if kind in _IN_MEMORY:
            shown = said if "=" in said else f"{said}, {folder},"
            raise InputError(
                f"{shown} is in this machine's memory ({kind}), which the nodes do not see; move it to a file system "
                "that they share"
            )


def _file_system(folder: Path) -> str:
    """Kind of the file system that a folder is on; "" where the system does not tell."""
    mounts = Path("/proc/self/mounts")
    if not mounts.is_file():
        return ""
    here = os.path.realpath(folder)
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, place, found, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        if len(place) >= len(best) and (here == place or here.startswith(place.rstrip("/") + "/")):
            best, kind = place, found
    return kind
