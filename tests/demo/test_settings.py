"""The demo trains each dataset as long as it needs, on patches that a CPU can do, with plans that fit their target."""

from __future__ import annotations

import io
import json
import os
import warnings
from pathlib import Path

import pytest
import SimpleITK
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from rich.console import Console

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.demo import run
from nnunetv2_slicemamba.demo.layout import DATASETS, DemoDataset
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow
from nnunetv2_slicemamba.planning.planner import PLANNERS
from nnunetv2_slicemamba.trainers import TRAINERS


@pytest.mark.parametrize(("data", "lengths"), [("2d", (300, 150)), ("3d", (800, 600))])
def test_volumes_are_trained_for_longer_than_images(data: str, lengths: tuple[int, int]) -> None:
    trainers = [TRAINERS[name] for name in run.trainers_of(DATASETS[data])]
    assert ["Supernet" in trainer.__name__ for trainer in trainers] == [False, True]
    assert tuple(trainer.epochs * trainer.iterations_per_epoch for trainer in trainers) == lengths


@pytest.mark.parametrize("data", DATASETS)
def test_the_commands_of_a_run_are_those_of_its_dataset(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, "restored after the test")
    called: list[list[str]] = []

    def stop_at_the_first_training(name: str, arguments: list[str], *_: object, **__: object) -> None:
        called.append([name, *arguments])
        dataset = DATASETS[data]
        if arguments[0] == "plan":
            plans = Path(os.environ["nnUNet_preprocessed"]) / dataset.folder_name / f"{run.PLANS}.json"
            plans.parent.mkdir(parents=True)
            network = {"network_class_name": "x.SliceMambaUNet", "arch_kwargs": {}, "_kw_requires_import": []}
            n_dims = int(data[0])
            shape = {"patch_size": [999] * n_dims, "spacing": [1.0] * n_dims, "batch_size": 2, "data_identifier": "x"}
            settings = {**shape, "architecture": network}
            plans.write_text(json.dumps({"plans_name": run.PLANS, "configurations": {dataset.configuration: settings}}))
            return
        raise CommandError("stopped")

    monkeypatch.setattr(run, "run_command", stop_at_the_first_training)
    monkeypatch.setattr("nnunetv2_slicemamba.pipeline.fold_steps.run_command", stop_at_the_first_training)
    for _ in range(2):
        with pytest.raises(CommandError, match="stopped"):
            run.run_demo(data, tmp_path, "cpu", Console(file=io.StringIO()))
    plan, first, second = called
    assert plan[:2] == ["slicemamba", "plan"]
    assert first == second, "the second run plans no more"
    assert (
        first[first.index("-tr") + 1]
        == {
            "2d": "SliceMambaSupernetTrainer_demo",
            "3d": "SliceMambaSupernetTrainer_demo3d",
        }[data]
    )


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_its_plans_fit_their_target_and_have_the_demos_patch(
    dataset: DemoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    run.lay_out(dataset, tmp_path / "nnUNet_raw")
    folder = tmp_path / "nnUNet_preprocessed" / dataset.folder_name
    called = 0

    def plan_here(name: str, arguments: list[str], *_: object, **__: object) -> None:
        nonlocal called
        called += 1
        options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        write_fingerprint(dataset, tmp_path / "nnUNet_raw" / dataset.folder_name, folder)
        plan_experiment_dataset(dataset.dataset_id, PLANNERS[options["--size"]], float(options["--gpu-memory"]))

    monkeypatch.setattr(run, "run_command", plan_here)
    with warnings.catch_warnings():
        # what the planner says of plans that do not fit
        warnings.simplefilter("error", UserWarning)
        run.plan_demo(dataset, StepsInARow(1, Console(file=io.StringIO())))
    settings = json.loads((folder / f"{run.PLANS}.json").read_text())["configurations"][dataset.configuration]
    assert tuple(settings["patch_size"]) == dataset.patch_size
    assert settings["batch_size"] == 2
    run.plan_demo(dataset, StepsInARow(1, Console(file=io.StringIO())))
    assert called == 1, "plans with the demo's patch are not made again"


def write_fingerprint(dataset: DemoDataset, raw: Path, folder: Path) -> None:
    """Writes a fingerprint as nnU-Net extracts it, without its processes; intensities are made up."""
    shapes, spacings = [], []
    for file in sorted((raw / "labelsTr").iterdir()):
        image = SimpleITK.ReadImage(str(file))
        flat = image.GetDimension() == 2
        shapes.append([1] * flat + list(image.GetSize())[::-1])
        spacings.append([999.0, 1.0, 1.0] if flat else list(image.GetSpacing())[::-1])
    intensities = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0)
    fingerprint = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "median_relative_size_after_cropping": 1.0,
    }
    folder.mkdir(parents=True)
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
