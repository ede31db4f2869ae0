"""Run of the demo: the commands that a user would type, then the table and the picture."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.commands import run_command
from nnunetv2_slicemamba.common.console import styled
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import is_quiet, progress_console
from nnunetv2_slicemamba.demo.layout import DATASETS, DemoDataset, lay_out
from nnunetv2_slicemamba.demo.patch import patch_size, set_patch_size
from nnunetv2_slicemamba.demo.picture import draw_cases
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, steps_of_fold, summary_dice
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow, run_fold, totals
from nnunetv2_slicemamba.pipeline.preparing import named_selections
from nnunetv2_slicemamba.pipeline.step import PLAN, Finished
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.planning.sizes import plans_name_of
from nnunetv2_slicemamba.slicing.candidates import candidate_text
from nnunetv2_slicemamba.slicing.file import read_slicing_file

# the paper's network in size S: on a CPU a hybrid's training step takes three times as long in 3D
SIZE, NETWORK = "S", "paper"
PLANS = plans_name_of(SIZE, NETWORK)
SEARCH = ("--population", "6", "--generations", "1")
FOLDS = ("0", "1")
SILENCE_SECONDS = 8.0  # at most, in a log file


def run_demo(data: str, folder: Path, device: str, console: Console) -> None:
    """Runs every step on a shipped dataset below `folder`; continues where an earlier run stopped.

    data: "2d" or "3d". device: "cpu", "cuda" or "mps". console: for the result.
    """
    dataset = DATASETS[data]
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / variable).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str((folder / variable).resolve())
    raw = folder / "nnUNet_raw"
    split = lay_out(dataset, raw)
    shown = progress_console()
    shown.print(
        f"{len(split.folds[0]['train'])} training and {len(split.folds[0]['val'])} validation cases in each of two "
        f"folds, {len(split.test)} test cases that neither fold sees ({dataset.licence})"
    )
    name, configuration = dataset.folder_name, dataset.configuration
    trainer, supernet = trainers_of(dataset)
    # by their own seeds the folds try other architectures, so their slicings differ
    settings = [RunSettings(trainer, supernet, device, ("--seed", fold, *SEARCH)) for fold in FOLDS]
    folds = [
        step
        for selection, own in zip(named_selections(name, configuration, FOLDS, PLANS), settings, strict=True)
        for step in steps_of_fold(selection, own)
    ]
    models = {"fold_0": ["0"], "fold_1": ["1"], "ensemble": ["0", "1"]}
    steps = StepsInARow(len(folds) + len(models) + 2, shown, SILENCE_SECONDS)
    shown.print(
        f"{steps.total} steps: plan; supernet, search and training of two folds ({totals(folds)}); predictions "
        "by each fold and by both; the report"
    )
    plan_demo(dataset, steps)

    selections = [select(name, configuration, fold, PLANS) for fold in FOLDS]
    for selection, own in zip(selections, settings, strict=True):
        flags = ["-d", str(dataset.dataset_id), "-c", configuration, "-f", str(selection.fold), "--search"]
        flags += [*own.search_arguments, "-tr", trainer, "-device", device]
        shown.print(f"The next three steps are those of: {shell_line('slicemamba', 'run', *flags)}")
        run_fold(selection, own, steps)

    dice = {}
    for title, numbers in models.items():
        steps.begin(f"predict and evaluate the test cases, {title.replace('_', ' ')}")
        output = predict(dataset, numbers, folder / "predictions" / title, device, steps)
        dice[title] = evaluate(raw / dataset.folder_name / "labelsTs", output, selections[0], trainer, steps)
    steps.begin("picture and report")
    ensemble, picture = folder / "predictions" / "ensemble", folder / f"demo_{data}.png"
    draw_cases(raw / dataset.folder_name, ensemble, split.test[:4], dataset.file_ending, picture)
    report = folder / "report.html"
    arguments = ["report", "-d", str(dataset.dataset_id), "-o", str(report), "--predictions", str(ensemble)]
    run_command("slicemamba", arguments, shown, watch=steps.latest())
    show(dice, [SupernetFolder(selection, supernet) for selection in selections], console)
    console.print(f"Picture of image, truth and prediction: {picture}\nReport: {report}")
    if not is_quiet():
        own_images = ("--images", "IMAGES", "--masks", "MASKS", "-d", "ID", "--name", "NAME", "--labels", "LABEL")
        console.print(f"Next, with your own images: {shell_line('slicemamba', 'convert', 'folders', *own_images)}")


def trainers_of(dataset: DemoDataset) -> tuple[str, str]:
    """Class names of the final and the supernet trainer, of the length that this dataset needs."""
    return f"SliceMambaTrainer{dataset.trainers}", f"SliceMambaSupernetTrainer{dataset.trainers}"


def plan_demo(dataset: DemoDataset, steps: StepsInARow) -> None:
    """Plans and preprocesses, with the demo's patch; does nothing if an earlier run did."""
    file = Path(os.environ["nnUNet_preprocessed"]) / dataset.folder_name / f"{PLANS}.json"
    patch = dataset.patch_size
    # planning again would be refused as soon as something is trained with that patch
    if file.is_file() and patch_size(file, dataset.configuration) == patch:
        steps.begin(f"{PLAN}: {Finished(PLANS).text}")
        return
    steps.begin(PLAN)
    plan = ["-d", str(dataset.dataset_id), "-c", dataset.configuration, "--network", NETWORK, "--size", SIZE]
    run_command("slicemamba", ["plan", *plan, "--gpu-memory", "2"], steps.console, watch=steps.latest())
    planned = set_patch_size(file, dataset.configuration, patch)
    steps.console.print(
        f"Patch {'x'.join(map(str, patch))} in place of {'x'.join(map(str, planned))}, set in {file.name}: a CPU is "
        "done in minutes"
    )


def predict(dataset: DemoDataset, folds: list[str], output: Path, device: str, steps: StepsInARow) -> Path:
    """Predicts the test cases with nnU-Net's command."""
    images = Path(os.environ["nnUNet_raw"]) / dataset.folder_name / "imagesTs"
    flags = ["-c", dataset.configuration, "-p", PLANS, "-tr", trainers_of(dataset)[0], "-f", *folds, "-device", device]
    arguments = [
        "-d",
        dataset.folder_name,
        "-i",
        str(images),
        "-o",
        str(output),
        *flags,
        "--disable_tta",
        "-npp",
        "0",
        "-nps",
        "0",
    ]
    run_command("nnUNetv2_predict", arguments, steps.console, watch=steps.latest())
    return output


def evaluate(truth: Path, output: Path, selection: Selection, trainer: str, steps: StepsInARow) -> float:
    """Mean foreground Dice by nnU-Net's command."""
    folder = selection.configuration_folder(trainer)
    files = ["-djfile", str(folder / "dataset.json"), "-pfile", str(folder / "plans.json")]
    arguments = [str(truth), str(output), *files]
    run_command("nnUNetv2_evaluate_folder", arguments, steps.console, watch=steps.latest())
    return summary_dice(output / "summary.json")


def show(dice: dict[str, float], supernets: list[SupernetFolder], console: Console) -> None:
    """Prints the table of the demo's result."""
    slicings = [read_slicing_file(own.slicing_file).choice for own in supernets]
    table = Table("model", "Dice on the held-out cases", "slicing of the blocks", title="SliceMamba demo")
    for fold, choice in enumerate(slicings):
        shown = " ".join(map(candidate_text, choice.slicing))
        table.add_row(f"fold {fold}", f"{dice[f'fold_{fold}']:.4f}", f"{choice.how_chosen}: {shown}")
    table.add_row("ensemble of both", styled(f"{dice['ensemble']:.4f}", "bold"), "each fold with its own")
    console.print(table)
