"""Options of a run on a SLURM cluster."""

from __future__ import annotations

from typing import Annotated

from nnunetv2_slicemamba.cli.options import choice, text, whole

Launcher = Annotated[
    str,
    choice(
        "--launcher",
        names=("local", "slurm"),
        help="local: this machine. slurm: jobs of a cluster.",
    ),
]
Partition = Annotated[
    str | None, text("--partition", metavar="NAME", help="slurm: partition. Default: the cluster's own.")
]
Time = Annotated[
    str | None,
    text("--time", metavar="HH:MM:SS", help="slurm: time limit of a job; trainings continue in another job."),
]
Account = Annotated[str | None, text("--account", metavar="NAME", help="slurm: account.")]
Sbatch = Annotated[
    list[str] | None,
    text("--sbatch", metavar="NAME=VALUE", help="slurm: any other option of sbatch, e.g. mem=64G; may be repeated."),
]
SearchNodes = Annotated[
    int | None, whole("--search-nodes", least=1, most=1024, help="slurm: nodes that share each search. Default: 1.")
]
