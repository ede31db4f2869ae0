"""A search on several nodes: what each node of its job runs."""

from __future__ import annotations

import os

import submitit

from nnunetv2_slicemamba.pipeline.step import Command

_PORTS = (20_000, 40_000)  # the first one, and how many: two jobs of one node get different ones


def part_of_node(command: Command, job: submitit.JobEnvironment, device: str) -> Command:
    """This node's part of a search: torchrun, with a process per GPU that the job has here; one process without GPUs.

    The processes meet on the node of task 0. command: of the whole search.
    """
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or job.hostnames[0]
    port = _PORTS[0] + int(job.raw_job_id) % _PORTS[1]
    arguments = (
        *("--nnodes", str(job.num_nodes), "--node-rank", str(job.global_rank)),
        *("--nproc-per-node", "gpu" if device == "cuda" else "1"),
        *("--master-addr", address, "--master-port", str(port)),
        *("-m", "nnunetv2_slicemamba.search", *command.arguments[1:]),
    )
    return Command("torchrun", arguments, command.variables)
