"""How far a training is, as its log says at every moment."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nnunetv2_slicemamba.pipeline.progress import TrainingProgress, last_line, training_progress

EPOCH = """2026-03-02 10:00:00.200000: Epoch {0}
2026-03-02 10:00:00.300000: Current learning rate: 0.001
"""
END = """2026-03-02 10:00:20.000000: train_loss {0}
2026-03-02 10:00:20.100000: val_loss -0.2
2026-03-02 10:00:20.200000: Pseudo dice [{1}]
2026-03-02 10:00:20.300000: Epoch time: 20.5 s
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "debug.json").write_text(json.dumps({"num_epochs": "12"}))
    return tmp_path


def test_a_training_tells_epoch_loss_dice_and_the_time_that_is_left(folder: Path) -> None:
    assert training_progress(folder) == TrainingProgress()
    log = folder / "training_log_2026_3_2.txt"
    log.write_text(EPOCH.format(0))
    assert training_progress(folder) == TrainingProgress(0, 12, ended=0)
    first = EPOCH.format(0) + END.format("-0.4321", "np.float32(0.25), np.float32(0.75)")
    log.write_text(first)
    assert training_progress(folder) == TrainingProgress(0, 12, -0.4321, 0.5, 11 * 20.5, 1)
    log.write_text(first + EPOCH.format(1))
    assert training_progress(folder) == TrainingProgress(1, 12, -0.4321, 0.5, 11 * 20.5, 1)
    log.write_text(first + EPOCH.format(11) + END.format("nan", "np.float32(nan), np.float32(0.75)"))
    now_at = training_progress(folder)
    assert now_at.seconds_left == 0
    assert now_at.loss is not None
    assert math.isnan(now_at.loss)
    assert now_at.dice == 0.75


def test_what_is_half_written_or_damaged_costs_no_more_than_its_number(folder: Path) -> None:
    (folder / "debug.json").write_text('{"num_epo')
    log = folder / "training_log_2026_3_2.txt"
    log.write_bytes(b"\xff\x00" * 100_000 + EPOCH.format(3).encode() + b"2026: train_loss -0.")
    assert training_progress(folder) == TrainingProgress(epoch=3, ended=3)


def test_the_last_line_is_the_commands_not_its_launchers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == last_line(None) == ""
    log.write_text(
        "2026-03-02 10:00:00.25: no memory left\n\nsubmitit ERROR (2026) - Submitted job triggered an exception\n"
        "slurmstepd: error: *** STEP 6.0 ON n0 CANCELLED AT 2026-03-02T10:00:01 ***\nsrun: error: n0: task 0: Killed\n"
    )
    assert last_line(log) == "no memory left"
