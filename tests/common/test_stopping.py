"""A command that is asked to end, or whose parent ends, leaves no child at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.stopping import end_at_once, handling_signals, noticing_signals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children end with their parent on Linux only")

# Stands in for a training: notes that it works, answers SIGTERM and Ctrl-C by saving, which takes a moment.
TRAINING = """
import os, sys, time
from pathlib import Path
from nnunetv2_slicemamba.common.stopping import noticing_signals
def train():
    folder = Path(sys.argv[1])
    with noticing_signals() as noticed:
        (folder / "process").write_text(str(os.getpid()))
        while not noticed:
            time.sleep(0.02)
        time.sleep(0.3)
        (folder / "saved").write_text(str(noticed[0]))
    sys.exit(128 + noticed[0])
"""
PARENT = """
import sys
from rich.console import Console
from nnunetv2_slicemamba.common import commands
from nnunetv2_slicemamba.common.watch import Watch
from tests import light_child
commands.run_process = light_child.run_process
commands.ENTRY_POINTS["train"] = ("training", "train")
watch = Watch(Console()) if len(sys.argv) > 2 else None
commands.run_command("train", [sys.argv[1]], Console(), watch=watch)
print("went on")
"""


def start(folder: Path, *more: str) -> tuple[subprocess.Popen[str], int]:
    """The parent, in a process group of its own, and the process number of the training that it has started."""
    (folder / "training.py").write_text(TRAINING)
    paths = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), *more],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: (folder / "process").is_file() and (folder / "process").read_text() != "")
    return parent, int((folder / "process").read_text())


def wait_until(true: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(process: int) -> bool:
    """Whether a process works: one that has ended may wait for its parent to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "group", "more"), [("SIGTERM", False, ()), ("SIGINT", True, ("quiet",)), ("SIGTERM", True, ())]
)
def test_a_command_that_is_asked_to_end_waits_until_its_training_has_saved(
    number: str, group: bool, more: tuple[str, ...], tmp_path: Path
) -> None:
    parent, training = start(tmp_path, *more)
    asked = signal.Signals[number]
    (os.killpg if group else os.kill)(parent.pid, asked)
    said, _ = parent.communicate(timeout=30)
    assert parent.returncode == 128 + asked
    assert (tmp_path / "saved").read_text() == str(int(asked)), "a signal that came twice ended it before it had saved"
    assert not lives(training)
    assert f"{number}: ended" in said
    assert "went on" not in said


def test_a_training_saves_and_ends_where_the_command_that_started_it_is_killed(tmp_path: Path) -> None:
    parent, training = start(tmp_path)
    parent.kill()
    wait_until(lambda: not lives(training))
    assert (tmp_path / "saved").read_text() == str(int(signal.SIGTERM))
    assert parent.stdout is not None
    parent.stdout.close()
    parent.wait()


def test_a_command_started_by_a_parent_that_is_gone_already_does_nothing(tmp_path: Path) -> None:
    code = "import sys; open(sys.argv[1], 'w')"
    (tmp_path / "late.py").write_text(f"def train():\n    {code}\n")
    call = [sys.executable, "-m", "nnunetv2_slicemamba.common.child", "1", "late", "train", "train", f"{tmp_path}/made"]
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(call, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == -signal.SIGTERM
    assert not (tmp_path / "made").exists()


def test_a_request_that_comes_twice_counts_once_and_a_later_one_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt), noticing_signals() as noticed:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert noticed == [signal.SIGTERM]
        clock[0] += 60
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        end_at_once(signal.SIGINT)


def test_what_the_process_was_started_to_ignore_stays_ignored_and_handlers_come_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with handling_signals(lambda number: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not terminate
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_is_ended_by_sigterm_and_leaves_ctrl_c_to_its_parent() -> None:
    with noticing_signals() as noticed:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    assert noticed == []


HANGING = """
import multiprocessing, sys, time
from nnunetv2_slicemamba.common import stopping
stopping.ENDING_SECONDS = 0.3
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
# the interpreter itself waits for it at its end
try:
    with stopping.interruptible():
        child.start()
        try:
            print(child.pid, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            if len(sys.argv) == 1:
                child.join()  # as a pool that waits for a worker which does not answer
            raise
finally:
    print("left", flush=True)
"""


@pytest.mark.parametrize("where", ["in its work", "at its end"])
def test_a_command_that_hangs_after_ctrl_c_ends_with_its_children_all_the_same(where: str) -> None:
    more = [] if where == "in its work" else [where]
    process = subprocess.Popen([sys.executable, "-c", HANGING, *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.split() == ["interrupted"] + ["left"] * len(more)
    wait_until(lambda: not lives(child))
