"""A real SLURM cluster on this machine: two nodes, and two partitions of which one preempts the other."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
NODES = ("n0", "n1")
CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=low Nodes=n0,n1 Default=YES MaxTime=60 PriorityTier=1
PartitionName=high Nodes=n0,n1 MaxTime=60 PriorityTier=2 PreemptMode=OFF
"""


def missing_programs() -> list[str]:
    """Programs of SLURM and munge that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def search_path() -> str:
    """PATH with the folders of daemons, which it need not have."""
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


@contextmanager
def running_cluster() -> Iterator[None]:
    """Context in which the cluster runs, and this process's SLURM_CONF names it."""
    with ExitStack() as stack:
        # munge takes no long paths for its socket
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="slurm", dir="/tmp")))
        folder.chmod(0o755)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        values = {"host": socket.gethostname(), "user": getpass.getuser(), "folder": folder, "ports": _free_ports(3)}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        stack.callback(_restore, "SLURM_CONF", before)
        munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.sock", *files]
        for call in (munged, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)):
            log = stack.enter_context((folder / f"{'_'.join(call).replace('/', '_')[:40]}.out").open("w"))
            process = subprocess.Popen(
                call, stdout=log, stderr=log, env={**os.environ, "PATH": search_path()}, start_new_session=True
            )
            stack.callback(_end, process)
            if call is munged:
                wait_until((folder / "munge.sock").exists, 30)
        wait_until(
            lambda: said("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T").split() == ["idle"] * 2, 60
        )
        yield


def _restore(name: str, value: str | None) -> None:
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()
    process.wait()


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def said(*call: str) -> str:
    """What one of SLURM's commands prints; "" if it fails."""
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    return ended.stdout if ended.returncode == 0 else ""


def told(*call: str) -> str:
    """What one of SLURM's commands prints, which must succeed."""
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Waits until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.5)
