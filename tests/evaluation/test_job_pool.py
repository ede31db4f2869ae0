"""Workers of an evaluation end with it, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

# the pool's workers import nothing slow: a stand-in takes PyTorch's place
EVALUATION = """
import os, sys, time
from pathlib import Path
from nnunetv2_slicemamba.evaluation.job_pool import JobPool

def work(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(0.1)

if __name__ == "__main__":
    with JobPool(2) as pool:
        list(pool.results_of(work, sys.argv[1:]))
        Path("idle").touch()
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children end with their parent on Linux only")
def test_workers_end_with_an_evaluation_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("def set_num_threads(n): pass")
    (tmp_path / "evaluation.py").write_text(EVALUATION)
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    evaluation = subprocess.Popen(
        [sys.executable, "evaluation.py", "a", "b", "c", "d"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}
    )
    wait_until((tmp_path / "idle").is_file)
    workers = {int((tmp_path / name).read_text()) for name in "abcd"}
    assert workers
    assert all(is_at_work(worker) for worker in workers)
    evaluation.kill()
    evaluation.wait()
    wait_until(lambda: not any(is_at_work(worker) for worker in workers))


def is_at_work(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(true: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
