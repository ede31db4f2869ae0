"""Runs console scripts in forks of one process that has already imported the packages that are slow to import.

Every command is the installed script itself, in a process, an environment and a working directory of its own; it only
starts with PyTorch, nnU-Net and the like in memory, which saves about ten seconds each, and so do the worker processes
that nnU-Net starts. nnU-Net reads its folders when they are used; what it reads when imported is the same for every
command here (ENVIRONMENT). A command with a PYTHONPATH, behind which another nnU-Net may be, imports it anew.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection, forkserver
from multiprocessing.context import DefaultContext
from pathlib import Path
from typing import Any

from tests.quick_nnunet import draw_no_progress, sample_fewer_voxels

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}
ANEW = ("nnunetv2", "nnunetv2_slicemamba")
SHORT = "TESTS_SHORT_TRAININGS"  # set for trainings of two iterations an epoch
STAYED = 1000  # stands for an exit code
OPERATORS = "nnunetv2_slicemamba.ops"
SLOW = (
    "torch",
    "torch._dynamo",
    "torch._inductor",
    "torch.nn.parallel",
    "batchgenerators.dataloading.single_threaded_augmenter",
    "batchgenerators.utilities.file_and_folder_operations",
    "batchgeneratorsv2.helpers.scalar_type",
    "batchgeneratorsv2.transforms.spatial.spatial",
    "acvl_utils.cropping_and_padding.bounding_boxes",
    "blosc2",
    "dynamic_network_architectures.architectures.unet",
    "matplotlib.pyplot",
    "nibabel",
    "numba",
    "optuna",
    "pandas",
    "rich.progress",
    "scipy.ndimage",
    "seaborn",
    "SimpleITK",
    "skimage.transform",
    "sklearn.model_selection",
    "typer",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.run.run_training",
    "nnunetv2_slicemamba.cli.main",
    "nnunetv2_slicemamba.planning.preprocessing",
    "nnunetv2_slicemamba.search.run",
    "nnunetv2_slicemamba.trainers",
)


class Zygote:
    """The process from which commands are forked; started at the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(
        self,
        script: Path,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        end: Mapping[str, float] | None = None,
    ) -> tuple[int, str]:
        """Exit code and output, standard error included, of a console script.

        end: {"after": seconds, "signal": number, "group": 0 or 1} sends a signal to the command, or to all its
        processes; the answer then comes when all of them have ended. Those that live a minute later fail.
        """
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, __file__],
                    env={**os.environ, **ENVIRONMENT},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            output = cwd / ".output"
            order = {"argv": [str(script), *arguments], "env": dict(env), "cwd": str(cwd), "output": str(output)}
            order["end"] = dict(end) if end is not None else None
            print(json.dumps(order), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            text = output.read_text(errors="replace")
            output.unlink()
            return code, text


def fork_instead_of_spawn() -> None:
    """A process that asks for a newly started helper process gets a fork of itself as it is now, without threads.

    That is Python's fork server, only that the server is forked here instead of started, which imports nothing.
    """
    if "authkey_r" in inspect.signature(forkserver.main).parameters:
        return  # Python 3.14 starts its server otherwise
    listener, address = socket.socket(socket.AF_UNIX), connection.arbitrary_address("AF_UNIX")
    listener.bind(address)
    listener.listen()
    alive_read, alive_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(alive_write)
        try:
            forkserver.main(listener.fileno(), alive_read, [])
        finally:
            os._exit(0)
    os.close(alive_read)
    listener.close()
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, alive_write, pid
    original = DefaultContext.get_context

    def get_context(self: Any, method: str | None = None) -> Any:
        return original(self, "forkserver" if method == "spawn" else method)

    DefaultContext.get_context = get_context  # type: ignore[method-assign]
    multiprocessing.get_context = multiprocessing.context._default_context.get_context  # type: ignore[attr-defined]


def become(order: dict) -> None:
    """Turns this fork into the command and runs it; the interpreter then ends as it would have."""
    with open(order["output"], "wb") as output, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = order["argv"]
    sys.path[:] = [*filter(None, order["env"].get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    if order["env"].get("PYTHONPATH"):
        # PyTorch registers an operator once in a process
        for name in [name for name in sys.modules if name.partition(".")[0] in ANEW and not name.startswith(OPERATORS)]:
            del sys.modules[name]
    else:
        draw_no_progress()
    fork_instead_of_spawn()
    if order["env"].get(SHORT):
        from tests.features.pipeline import shorten_trainings

        shorten_trainings()
    if order["argv"][1:2] == ["plan"] or Path(order["argv"][0]).name == "nnUNetv2_plan_and_preprocess":
        sample_fewer_voxels()
    runpy.run_path(order["argv"][0], run_name="__main__")


def serve() -> None:
    """Forks a command for every line of standard input and answers with its exit code."""
    for module in SLOW:
        importlib.import_module(module)
    gc.freeze()  # or every fork would collect, and so copy, what it never touches
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            if order["end"]:
                os.setpgid(0, 0)
            return become(order)
        code = ended(pid, order["end"]) if order["end"] else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, flush=True)


def ended(process: int, end: Mapping[str, float]) -> int:
    """Sends a signal to a command; its exit code, or STAYED if some of its processes went on working for a minute."""
    with contextlib.suppress(PermissionError):  # it has begun, and has done this itself
        os.setpgid(process, process)
    until = time.monotonic() + end["after"]
    while time.monotonic() < until and os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.005)
    (os.killpg if end["group"] else os.kill)(process, int(end["signal"]))
    until, found = time.monotonic() + 60, 0
    while not found or working(process):
        if not found:
            found, status = os.waitpid(process, os.WNOHANG)
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
            if not found:
                os.waitpid(process, 0)
            return STAYED
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(status)


def working(group: int) -> list[int]:
    """The processes of a group that have not ended; the orphaned ones may wait for somebody to notice."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = status.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(status.parent.name))
    return found


if __name__ == "__main__":
    serve()
