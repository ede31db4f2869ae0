"""The benchmark of folds at once, with stand-ins for `slicemamba` and nvidia-smi: parts, ends and figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import folds_gpu
import pages
import pytest
import results

from nnunetv2_slicemamba.planning.sizes import RECOMMENDED, plans_name_of

# notes how it is called, fails where FAILS names a fold, and lasts for some samples
SLICEMAMBA = """import os, sys, time
call = " ".join(sys.argv[1:])
open(os.environ["CALLS"], "a").write(call + "\\n")
if "run" in call and "1epoch" not in call:
    time.sleep(0.2)
    sys.exit("-f " + os.environ.get("FAILS", "none") in call)
"""
NVIDIA_SMI = """#!/bin/sh
echo '0, GPU-aa11, 40, 1024'
echo '1, GPU-bb22, 60, 3072'
echo '2, GPU-cc33, [N/A], 9999'
"""
PLANS = plans_name_of("L", RECOMMENDED)
ASKED = ("--gpus", "2", "--per-gpu", "3", "--epochs", "10")


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Calls the benchmark; gives the calls of `slicemamba run` that it makes, without what compiles."""
    program, calls = tmp_path / "nvidia-smi", tmp_path / "calls"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setattr(folds_gpu, "SLICEMAMBA", (sys.executable, "-c", SLICEMAMBA))
    monkeypatch.setattr(folds_gpu, "SAMPLE_SECONDS", 0.05)
    monkeypatch.setattr(folds_gpu, "device_name", lambda device: "H200")
    monkeypatch.setattr(
        "torch.cuda.device_count", lambda: len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(","))
    )
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def call(*options: str) -> list[str]:
        calls.write_text("")
        folds_gpu.main([*ASKED, "--work", str(tmp_path / "work"), *options])
        return [line for line in calls.read_text().splitlines() if line.startswith("run") and "1epoch" not in line]

    return call


def test_the_row_and_the_folds_at_once_may_be_measured_by_two_commands(
    benchmark: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = tmp_path / "tables"
    run = f"run -d 715 -c 3d_fullres -p {PLANS} -device cuda -tr SliceMambaTrainer_10epochs -f 0 1 2 3 4"
    with monkeypatch.context() as alone:
        alone.setenv("CUDA_VISIBLE_DEVICES", "0")
        assert benchmark("--part", "row", "--csv", str(tables)) == [run]
    assert "at once is not measured yet" in capsys.readouterr().out
    assert not tables.exists()
    assert benchmark("--csv", str(tables)) == [f"{run} --gpus 2 --per-gpu 3"]
    written = results.read("timings", tables)
    found = {row["figure"]: float(row["value"]) for row in written}
    expected = {"GPU in a row": 40, "GPU at once": 50, "memory in a row": 1, "memory at once": 3}
    assert expected.items() <= found.items()
    assert found["share of the row"] == pytest.approx(100 * found["at once"] / found["in a row"], abs=1)
    table = pages.timings("folds_gpu", ("in a row", "share of the row", "GPU at once"), tables)
    assert "in a row (s) | share of the row (%) | GPU at once (%)" in table
    assert f"| {PLANS}, 2 GPUs, 3 steps on each | H200 |" in table
    # called again, it measures nothing and adds nothing
    assert benchmark("--csv", str(tables)) == []
    assert results.read("timings", tables) == written


def test_what_was_measured_before_a_failure_is_kept(
    benchmark: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ("--fold-by-fold", "--folds", "0", "1")
    with monkeypatch.context() as failing:
        failing.setenv("FAILS", "1")
        with pytest.raises(SystemExit, match=r"-f 1' ended with 1; its logs are in .*/results_in_a_row_fold_1"):
            benchmark("--part", "row", *rows)
    (left, other) = benchmark(*rows)
    assert left.endswith("-f 0 1 --gpus 2 --per-gpu 3")
    assert other.endswith("-f 1")
    # other places are measured beside the same row
    (other,) = benchmark(*rows, "--per-gpu", "1")
    assert other.endswith("-f 0 1 --gpus 2 --per-gpu 1")


def test_more_gpus_than_there_are_are_refused_before_anything_is_called(
    benchmark: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(SystemExit):
        benchmark()
    assert "--gpus is 2, and 1 can be used" in capsys.readouterr().err
    assert folds_gpu.gpu_use(folds_gpu.visible_gpus(1)) == [(60, 3)]
    assert folds_gpu.gpu_use(["GPU-bb"]) == [(60, 3)]
    assert folds_gpu.gpu_use(["2"]) == []  # it does not tell
