"""A checkpoint is the old one or the new one, never half of one, and brings everything back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def saved(make_trainer: Callable[..., Any], tmp_path: Path) -> tuple[Any, Path]:
    """A trainer and the checkpoint that it has written."""
    trainer = make_trainer("SliceMambaTrainer_1epoch")
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    return trainer, file


def test_a_checkpoint_interrupted_while_writing_leaves_the_old_one(
    saved: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, file = saved
    before = file.read_bytes()

    def killed(checkpoint: Any, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", killed)
        trainer.current_epoch = 7
        with pytest.raises(KeyboardInterrupt):
            trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before

    # what was left of it is in nobody's way
    trainer.save_checkpoint(str(file))
    assert torch.load(file, weights_only=False)["current_epoch"] == 8
    assert [f.name for f in file.parent.glob("checkpoint*")] == [file.name]


def test_half_a_checkpoint_never_replaces_a_whole_one_where_checkpoints_are_switched_off(
    saved: tuple[Any, Path],
) -> None:
    trainer, file = saved
    before = file.read_bytes()
    Path(f"{file}.tmp").write_bytes(b"half")
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before


def test_only_the_first_rank_writes(saved: tuple[Any, Path]) -> None:
    trainer, file = saved
    file.unlink()
    trainer.local_rank = 1
    trainer.save_checkpoint(str(file))
    assert not file.exists()


@torch.no_grad()
def test_a_checkpoint_brings_back_weights_slicing_optimiser_and_epoch(
    make_trainer: Callable[..., Any], batch_for: Callable[[Any], dict[str, Any]], tmp_path: Path
) -> None:
    trainer, other = (make_trainer("SliceMambaTrainer_1epoch") for _ in range(2))
    trainer.bare_network.set_slicing([(4, 2)] * 7)
    trainer.current_epoch = 3
    with torch.enable_grad():
        trainer.train_step(batch_for(trainer))
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    other.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert other.bare_network.get_slicing() == ((4, 2),) * 7
    data = batch_for(trainer)["data"]
    trainer.network.eval()
    other.network.eval()
    assert all(torch.equal(a, b) for a, b in zip(trainer.network(data), other.network(data), strict=True))
    assert other.current_epoch == 4
    assert other.optimizer.state_dict()["state"].keys() == trainer.optimizer.state_dict()["state"].keys()
