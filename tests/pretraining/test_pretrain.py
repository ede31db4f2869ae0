"""Pretraining learns, goes on after a kill as if there had been none, and gives nnU-Net the weights it trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("timm", reason="pretraining needs timm: the extra 'pretrain'")

from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from typer.testing import CliRunner

from nnunetv2_slicemamba.cli.main import app
from nnunetv2_slicemamba.common.folder_lock import FolderInUseError, in_use
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.pretraining.training import Saving, Training
from nnunetv2_slicemamba.pretraining.training_log import TrainingLog, read_log
from tests.pretraining import pretraining_run
from tests.pretraining.pretraining_run import run
from tests.pretraining.test_import_command import make_trainer

# nothing that depends on which process has an image
PLAIN = {"mix_probability": 0.0, "erase_probability": 0.0, "drop_path": 0.0}


def curve(target: Path) -> list[dict[str, Any]]:
    """The whole log of a training."""
    return read_log(target.with_name(f"{target.stem}_pretraining"))


@pytest.fixture(scope="module")
def whole(planned: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights' file of a training that nothing disturbed."""
    target = tmp_path_factory.mktemp("whole") / "weights.pth"
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(variable, str(planned / variable))
        assert run(images, target).finished
    return target


def test_it_learns_to_tell_modalities_apart(workspace: Path, images: Path, tmp_path: Path) -> None:
    recipe = PLAIN | {"epochs": 6, "learning_rate": 0.1, "average_decay": 0.9, "random_augment": ""}
    done = run(images, tmp_path / "weights.pth", recipe)
    epochs = [line for line in curve(tmp_path / "weights.pth") if "epoch" in line]
    assert len(epochs) == 6
    assert all(line["top1"] <= line["top5"] == 100.0 for line in epochs), "of at most four classes"
    assert done.best["top1"] == max(max(line["top1"], line["ema_top1"]) for line in epochs)
    assert done.best["top1"] >= 75


def test_the_log_has_every_step_and_every_epoch_once(whole: Path, images: Path) -> None:
    steps = len(list((images / "train").rglob("*.png"))) // 4 * 2
    lines = curve(whole)
    assert [line["step"] for line in lines if "epoch" not in line] == list(range(steps))
    assert [line["epoch"] for line in lines if "epoch" in line] == [0, 1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_training_that_is_killed_continues_the_same_curve(
    whole: Path, workspace: Path, images: Path, tmp_path: Path
) -> None:
    target = tmp_path / "weights.pth"
    (tmp_path / "request.json").write_text(json.dumps({"images": str(images), "target": str(target)}))
    command = [sys.executable, pretraining_run.__file__, str(tmp_path / "request.json")]
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    deadline = time.monotonic() + 120
    while len(curve(target)) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(curve(target)) < len(curve(whole))
    assert "FutureWarning" not in (tmp_path / "stderr").read_text()  # of what is imported
    # once more, in the middle of its work, and by a signal that lets it finish its step
    assert not stopped_by_sigterm(images, target, after=4).finished
    assert run(images, target).finished
    assert curve(target) == curve(whole)
    for name, value in torch.load(whole, weights_only=True)["network_weights"].items():
        assert torch.equal(torch.load(target, weights_only=True)["network_weights"][name], value), name


def stopped_by_sigterm(images: Path, target: Path, after: int, *recipe: Any, **changes: Any) -> Any:
    steps, calls = TrainingLog.steps, []

    def then_stop(self: TrainingLog, *arguments: Any) -> None:
        steps(self, *arguments)
        calls.append(arguments)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(TrainingLog, "steps", then_stop)
        done = run(images, target, *recipe, **changes)
    assert len(calls) == after
    return done


@pytest.mark.slow
def test_workers_that_load_images_do_not_change_the_curve(
    whole: Path, workspace: Path, images: Path, tmp_path: Path
) -> None:
    assert not stopped_by_sigterm(images, tmp_path / "weights.pth", after=2).finished
    run(images, tmp_path / "weights.pth", workers=2, look_every=1000)
    assert curve(tmp_path / "weights.pth") == curve(whole)


@pytest.mark.slow
def test_two_processes_under_torchrun_train_as_one_does_with_the_same_images_a_step(
    workspace: Path, images: Path, tmp_path: Path
) -> None:
    recipe = PLAIN | {"epochs": 1, "warmup_epochs": 0}
    run(images, tmp_path / "one.pth", recipe)
    request = {"images": str(images), "target": str(tmp_path / "two.pth"), "recipe": recipe | {"batch_size": 2}}
    (tmp_path / "request.json").write_text(json.dumps(request))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*torchrun, pretraining_run.__file__, str(tmp_path / "request.json")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    one, two = curve(tmp_path / "one.pth"), curve(tmp_path / "two.pth")
    assert [line["step"] for line in two] == [line["step"] for line in one]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    assert two[-1]["top1"] == pytest.approx(one[-1]["top1"], abs=5)


def test_stock_nnunet_starts_from_these_weights_with_a_slicing_of_the_folds_own(whole: Path, workspace: Path) -> None:
    folds = ["-d", "901", "-c", "2d", "-p", "nnUNetSliceMambaSPlans", "-f", "0"]
    assert CliRunner().invoke(app, ["slicing", *folds, "--set", "random:7"]).exit_code == 0
    trainer = make_trainer(workspace, "SliceMambaTrainer_1epoch")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    load_pretrained_weights(trainer.network, str(whole))
    pretrained_with = trainer.network.get_slicing()
    trainer._use_slicing_file()
    assert trainer.network.get_slicing() != pretrained_with

    trained = torch.load(whole.with_name("weights_pretraining") / "checkpoint_best.pth", weights_only=True)["model"]
    found = trainer.network.state_dict()
    stem = "encoder.patch_embedding.proj.weight"
    assert torch.allclose(found[stem], trained[stem].sum(1, keepdim=True), atol=1e-6), "three channels to one"
    for name, value in found.items():
        words = name.split(".")
        if name.startswith("encoder.") and name != stem:
            assert torch.equal(value, trained[name]), name
        elif name.startswith("decoder.stages.") and words[3] == "blocks":
            mirrored = ".".join(["encoder.stages", str(1 - int(words[2])), *words[3:]])
            assert torch.equal(value, trained[mirrored]), name
        elif ".seg_layers." in name:
            assert torch.equal(value, before[name]), name
    image = torch.randn(1, 1, 32, 40)
    assert all(torch.isfinite(output).all() for output in trainer.network.eval()(image))


def test_the_trainings_own_checkpoint_can_be_imported_for_the_supernet(whole: Path, workspace: Path) -> None:
    source = whole.with_name("weights_pretraining") / "checkpoint_latest.pth"
    target = whole.with_name("supernet.pth")
    where = ["-d", "901", "-c", "2d", "-p", "nnUNetSliceMambaSPlans"]
    words = ["import", str(source), "--to", str(target), *where, "--supernet", "--ema"]
    assert CliRunner().invoke(app, words).exit_code == 0
    average = torch.load(source, weights_only=True)["ema"]["encoder.stages.1.blocks.1.bss.Ds"]
    found = torch.load(target, weights_only=True)["network_weights"]
    assert all(torch.equal(found[f"encoder.stages.1.blocks.1.{i}.bss.Ds"], average) for i in range(4))


def test_another_training_in_the_same_folder_is_refused_by_what_differs(
    whole: Path, workspace: Path, images: Path
) -> None:
    with pytest.raises(InputError, match="is of another training") as caught:
        run(images, whole, {"weight_decay": 0.5}, slicing="2x4")
    assert "\n  weight_decay: 0.05 there, 0.5 now" in str(caught.value)
    assert "\n  slicing: " in str(caught.value)
    assert "epochs" not in str(caught.value)


@pytest.mark.parametrize("discard", [False, True])
def test_a_second_pretraining_in_a_folder_is_refused_and_changes_nothing(
    discard: bool, whole: Path, workspace: Path, images: Path
) -> None:
    before = curve(whole)
    with in_use(whole.with_name(f"{whole.stem}_pretraining")), pytest.raises(FolderInUseError, match="is in use by"):
        run(images, whole, discard=discard)
    assert curve(whole) == before


def test_discarding_begins_anew(workspace: Path, images: Path, tmp_path: Path) -> None:
    target, recipe = tmp_path / "weights.pth", {"epochs": 1, "warmup_epochs": 0, "image_size": 16}
    run(images, target, recipe)
    first = curve(target)
    other = tmp_path / "weights_pretraining" / "thesis.txt"
    other.write_text("not a training's")
    run(images, target, recipe | {"seed": 1}, discard=True)
    assert len(curve(target)) == len(first)
    assert curve(target) != first
    assert other.read_text() == "not a training's"


def test_tensorboard_shows_every_step_once_after_an_interruption(workspace: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard's logs need tensorboard: the extra 'pretrain'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    target, recipe = tmp_path / "weights.pth", {"epochs": 1, "warmup_epochs": 0, "image_size": 16}
    stopped_by_sigterm(images, target, 2, recipe)
    # TensorBoard reads files by name, which is the second and then a number that has no leading zeros
    time.sleep(1.1)
    run(images, target, recipe)
    events = EventAccumulator(str(tmp_path / "weights_pretraining" / "tensorboard"))
    events.Reload()
    expected = [(line["step"] + 1, line["loss"]) for line in curve(target) if "epoch" not in line]
    shown = events.Scalars("train/loss")
    assert [event.step for event in shown] == [step for step, _ in expected]
    assert [event.value for event in shown] == pytest.approx([loss for _, loss in expected])
    assert [event.step for event in events.Scalars("validation/top1")] == [len(expected)]


@pytest.mark.slow
def test_webdataset_shards_train_too_and_continue_the_same_curve(workspace: Path, images: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="shards need webdataset: the extra 'pretrain'")
    from nnunetv2_slicemamba.pretraining.images import Shards

    counts = {}
    classes = sorted(path.name for path in (images / "train").iterdir())
    for part in ("train", "val"):
        files = sorted((images / part).rglob("*.png"))
        counts[part] = len(files)
        for shard in range(2):
            with webdataset.TarWriter(str(tmp_path / f"{part}-{shard}.tar")) as writer:
                for i, file in enumerate(files[shard::2]):
                    content = file.read_bytes()
                    target = str(classes.index(file.parent.name)).encode()
                    writer.write({"__key__": f"{part}{shard}{i:04}", "png": content, "cls": target})
    shards = Shards(*(f"{part}-{{0..1}}.tar|{counts[part]}" for part in ("train", "val")), classes=len(classes))
    recipe = {"epochs": 2, "warmup_epochs": 0, "image_size": 16}
    run(tmp_path, tmp_path / "whole.pth", recipe, shards=shards)
    stopped_by_sigterm(tmp_path, tmp_path / "stopped.pth", 4, recipe, shards=shards)
    run(tmp_path, tmp_path / "stopped.pth", recipe, shards=shards)
    assert curve(tmp_path / "stopped.pth") == curve(tmp_path / "whole.pth")
    assert len([line for line in curve(tmp_path / "whole.pth") if "epoch" not in line]) == 2 * (counts["train"] // 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"batch_size": 3}}, "batch_size is 3, but mixup pairs images"),
        ({"recipe": {"batch_size": 1000}}, "training images, a step needs 1000"),
        ({"recipe": {"warmup_epochs": 2}}, "warmup_epochs is 2, it must be from 0 to epochs - 1, which is 1"),
        (
            {"recipe": {"image_size": 30}},
            "images of 30 pixels are not divisible by the network's total stride 8; 32 is",
        ),
        ({"recipe": {"precision": "fp8"}}, "precision is 'fp8'"),
        ({"slicing": "consensus"}, "a consensus needs the searches of at least two folds"),
        ({"images": "nowhere"}, "there is no folder nowhere"),
        ({"device": "tpu"}, "device 'tpu' does not exist"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(
    workspace: Path, images: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(**{"images": images, "target": tmp_path / "out" / "weights.pth", **change})
    assert not (tmp_path / "out").exists()


def test_other_layouts_are_refused_by_what_is_missing(workspace: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="has no folder val/"):
        run(tmp_path, tmp_path / "w.pth")
    (tmp_path / "val" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match=r"only in train: \['a'\], in val: \['b'\]"):
        run(tmp_path, tmp_path / "w.pth")
    (tmp_path / "val" / "b").rename(tmp_path / "val" / "a")
    with pytest.raises(InputError, match="has 1 classes, a classifier needs two"):
        run(tmp_path, tmp_path / "w.pth")
    for part in ("train", "val"):
        (tmp_path / part / "b").mkdir()
    with pytest.raises(InputError, match="Found 0 images in subfolders of .*train"):
        run(tmp_path, tmp_path / "w.pth")


def test_a_3d_configuration_is_refused_with_the_way_that_there_is(
    workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining_run, "WHERE", ("902", "3d_fullres", "all", "nnUNetSliceMambaSPlans"))
    with pytest.raises(InputError, match="--inflate mean"):
        run(images, tmp_path / "weights.pth", slicing="2x2x2")


def test_the_command_line_runs_it_and_says_what_comes_next(workspace: Path, images: Path, tmp_path: Path) -> None:
    where = ["-d", "901", "-c", "2d", "-p", "nnUNetSliceMambaSPlans", "--slicing", "2x4", "-device", "cpu"]
    small = ["--epochs", "1", "--warmup-epochs", "0", "--batch-size", "4", "--image-size", "16", "--workers", "0"]
    words = ["pretrain", str(images), "--to", str(tmp_path / "weights.pth"), *where, *small]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.exception
    assert "Best top-1" in result.output
    assert "-pretrained_weights" in result.output
    record = json.loads((tmp_path / "weights.pth.json").read_text())
    assert record["recipe"]["weight_decay"] == 0.05
    assert {tuple(thickness) for thickness in record["slicing"]} == {(2, 4)}


def test_all_processes_save_when_the_clock_of_one_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They meet at a barrier then; one that looks at its own clock alone may already wait for the next gradients."""
    said: list[bool] = []

    def of_any(flag: bool) -> bool:
        said.append(flag)
        return len(said) % 2 == 0  # no signal, but another process's clock

    training = Training.__new__(Training)
    training.processes = SimpleNamespace(any=of_any, total=lambda losses: losses, world=1)
    training.state = SimpleNamespace(step=0, optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}]))
    training.loading = SimpleNamespace(steps_per_epoch=3, epoch=lambda *_: iter(()), images_per_step=2)
    training.wrapped = torch.nn.Identity()
    saved: list[int] = []
    monkeypatch.setattr(training, "_step", lambda batches: torch.ones(()))
    monkeypatch.setattr(training, "_save", lambda saving: saved.append(training.state.step))
    training._epoch(0, SimpleNamespace(steps=lambda *_: None), Saving(tmp_path, {}, 3600.0, 1), [])
    assert said == [False] * 6
    assert saved == [1, 2, 3]


def test_damaged_lines_of_a_log_are_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(
        b'{"step": 0, "loss": 1.5}\n\xff\n{}\n{"step": 1, "epoch": "x"}\n{"step": 1}\n{"st'
    )
    with pytest.warns(UserWarning, match=r"log.jsonl, line 2; .*line 3; .*line 4; .*line 6$"):
        assert read_log(tmp_path) == [{"step": 0, "loss": 1.5}, {"step": 1}]
