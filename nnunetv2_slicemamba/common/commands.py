"""nnU-Net's and our own commands, run as a user would, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console

from nnunetv2_slicemamba.common.checkpoints import FORCE_SAFE
from nnunetv2_slicemamba.common.console import PlainConsole, styled
from nnunetv2_slicemamba.common.names import WITHIN_VARIABLE
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER, EXT_TRAINER_VARIABLE
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.stopping import exit_code, handling_signals
from nnunetv2_slicemamba.common.verbosity import is_quiet
from nnunetv2_slicemamba.common.watch import Watch

TRACEBACK = "Traceback (most recent call last):\n"
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*: (?P<message>.+)")  # its first line that is not indented
# the functions behind console scripts, which need not be on the PATH
ENTRY_POINTS = {
    "slicemamba": ("nnunetv2_slicemamba.cli.main", "main"),
    "nnUNetv2_train": ("nnunetv2.run.run_training", "run_training_entry"),
    "nnUNetv2_predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
    "torchrun": ("torch.distributed.run", "main"),
    "nnUNetv2_evaluate_folder": ("nnunetv2.evaluation.evaluate_predictions", "evaluate_folder_entry_point"),
}


class CommandError(RuntimeError):
    """A command failed; the message names it and its exit code."""


def environment(changed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of child processes, in which nnU-Net finds our trainers."""
    variables = {**os.environ, **(changed or {}), WITHIN_VARIABLE: "1"}
    folders = [part for part in variables.get(EXT_TRAINER_VARIABLE, "").split(os.pathsep) if part]
    if str(EXT_TRAINER_FOLDER) not in folders:
        folders.append(str(EXT_TRAINER_FOLDER))
    variables[EXT_TRAINER_VARIABLE] = os.pathsep.join(folders)
    # on a CPU nnU-Net's augmentation shares the cores: OpenMP threads that spin for long take them from those that
    # work, while sleeping at once doubles the time of small operations
    variables.setdefault("GOMP_SPINCOUNT", "5000")
    # what a training in this process switched on; children know of it by themselves, with the names that they may read
    variables.pop(FORCE_SAFE, None)
    return variables


def run_command(
    name: str,
    arguments: Sequence[str],
    console: Console,
    variables: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> None:
    """Runs `slicemamba ...`, torchrun or one of nnU-Net's commands and waits for it.

    name: a key of ENTRY_POINTS. variables: environment variables to change. watch: what shows its output, which is
    printed if the command fails; None for output as it comes. Where --quiet was given, output is shown only then. The
    command ends with this process, however that ends (on Linux). A signal that asks this process to end is passed on;
    SystemExit with its code follows once the command has ended. Raises CommandError naming the command, its exit code
    and, where a watch has seen it, the exception that ended it.
    """
    shown = shell_line(name, *arguments)
    loud = PlainConsole() if console.quiet else console
    if is_quiet():
        watch = Watch(PlainConsole(quiet=True))
    else:
        console.print(styled(f"$ {shown}", "bold cyan"), soft_wrap=True)
    start = [sys.executable, "-m", "nnunetv2_slicemamba.common.child", str(os.getpid()), *ENTRY_POINTS[name], name]
    code, output, asked = run_process([*start, *arguments], environment(variables), watch)
    if asked is not None:
        console.print(styled(f"{signal.Signals(asked).name}: ended '{shown}'"), soft_wrap=True)
        sys.exit(exit_code(asked))
    if code:
        if watch is None or not watch.shows_all:
            loud.print(styled(output), soft_wrap=True)
        reason = _reason(output)
        why = f": {reason}" if reason else ""
        raise CommandError(f"'{shown}' {_how_it_ended(code)}{why}; what was finished before it is kept")


def run_process(call: Sequence[str], variables: Mapping[str, str], watch: Watch | None) -> tuple[int, str, int | None]:
    """Runs a process to its end and passes on to it the signals that ask this process to end.

    watch: what shows its output; None for output as it comes. Returns exit code, the whole output if there was a watch,
    and the first signal that was passed on, None without one.
    """
    asked: list[int] = []
    process: subprocess.Popen[str] | None = None

    def pass_on(number: int) -> None:
        asked.append(number)
        if process is not None:
            with contextlib.suppress(ValueError):  # Windows sends Ctrl-C to all processes itself
                process.send_signal(number)

    with handling_signals(pass_on):
        if watch is None:
            process = subprocess.Popen(call, env=variables, text=True)
        else:
            # unbuffered, or the latest line would be minutes old
            running = {**variables, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(
                call, env=running, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
        with process:
            if asked:  # it came before there was a process to pass it on to
                process.terminate()
            try:
                output = _watched(process, watch) if watch is not None else ""
                process.wait()
            except BaseException:
                process.terminate()
                raise
    return process.returncode, output, asked[0] if asked else None


def _watched(process: subprocess.Popen[str], watch: Watch) -> str:
    """Output of a process to its end, which the watch has seen line by line."""
    kept = []
    with watch:
        for line in _lines(process):
            if line is not None:
                kept.append(line)
                watch.read(line)
            watch.look_at_the_time()
    return "".join(kept)


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Lines of a process's output, and None after each second without one."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def _reason(output: str) -> str:
    """The message of the exception that ended a program, without its type; "" for an output without a traceback."""
    _, begin, traceback = output.rpartition(TRACEBACK)
    if not begin:
        return ""
    last = next((line for line in traceback.splitlines() if line and not line[0].isspace()), "")
    found = EXCEPTION.fullmatch(last)
    return found["message"].strip().rstrip(".") if found else ""


def _how_it_ended(code: int) -> str:
    """An exit code in words: negative numbers and those above 128 stand for signals."""
    number = -code if code < 0 else code - 128
    try:
        return f"was ended by {signal.Signals(number).name}" + (f" (exit code {code})" if code > 0 else "")
    except ValueError:
        return f"failed with exit code {code}"
