"""`slicemamba pretrain`: ImageNet pretraining of the chosen network's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import TRAIN, listed
from nnunetv2_slicemamba.cli.options import (
    MANY_MINUTES,
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Device,
    Plans,
    SupernetTrainer,
    choice,
    flag,
    fold_option,
    number,
    output_option,
    say_next,
    seed_option,
    text,
    whole,
)
from nnunetv2_slicemamba.cli.stopped import tell_stopped
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import progress_console

EXAMPLES = (
    "slicemamba pretrain imagenet -d 501 -c 2d -p nnUNetSliceMambaPlans -o pretrained.pth --slicing 2x4",
    "slicemamba pretrain imagenet -d 501 -c 2d -p nnUNetSliceMambaPlans -o pretrained.pth --epochs 100",
)


def add_commands(app: typer.Typer) -> None:
    app.command("pretrain", **listed(TRAIN, EXAMPLES))(pretrain)


def pretrain(
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES", help="Folder with train/CLASS/... and val/CLASS/...", show_default=False)
    ],
    target: Annotated[Path, output_option("File to write, for -pretrained_weights.")],
    dataset: Dataset,
    configuration: Configuration,
    plans: Plans = PLANS,
    slicing: Annotated[
        str,
        text("--slicing", metavar="SLICING", help="Slicing to train with, as in `slicemamba slicing --set`."),
    ] = "consensus",
    fold: Annotated[str | None, fold_option("Take this fold's best_slicing.json instead.")] = None,
    folder: Annotated[
        Path | None,
        text("--folder", metavar="FOLDER", help="Folder of checkpoints and logs. Default: beside the file."),
    ] = None,
    epochs: Annotated[int, whole("--epochs", least=1, most=100_000, help="Epochs.")] = 300,
    warmup: Annotated[
        int, whole("--warmup-epochs", least=0, most=99_999, help="Epochs at the start with a rising learning rate.")
    ] = 20,
    batch_size: Annotated[int, whole("--batch-size", least=1, most=65_536, help="Images per process and batch.")] = 128,
    accumulate: Annotated[int, whole("--accumulate", least=1, most=65_536, help="Batches per step.")] = 1,
    image_size: Annotated[
        int, whole("--image-size", metavar="PIXELS", least=1, most=8192, help="Height and width of the images.")
    ] = 224,
    learning_rate: Annotated[
        float, number("--lr", metavar="RATE", above=0, most=100, help="Learning rate for 512 images a step.")
    ] = 5e-4,
    drop_path: Annotated[
        float, number("--drop-path", least=0, below=1, help="Stochastic depth of the last block.")
    ] = 0.2,
    precision: Annotated[
        str,
        choice("--precision", names=("fp16", "bf16", "fp32"), help="Type to compute in; without a GPU always fp32."),
    ] = "fp16",
    seed: Annotated[int, seed_option("Seed of everything random.")] = 0,
    workers: Annotated[
        int, whole("--workers", least=0, most=1024, help="Processes that load images, for each training process.")
    ] = 8,
    train_shards: Annotated[
        str | None,
        text(
            "--train-shards",
            metavar="SHARDS",
            help="Webdataset shards in IMAGES to train on, e.g. 'train-{000..99}.tar|130000'.",
        ),
    ] = None,
    val_shards: Annotated[
        str | None, text("--val-shards", metavar="SHARDS", help="Webdataset shards to validate on.")
    ] = None,
    classes: Annotated[int | None, whole("--classes", least=1, most=10_000_000, help="Classes in the shards.")] = None,
    save_minutes: Annotated[
        float,
        number("--save-minutes", metavar="MINUTES", least=0, most=MANY_MINUTES, help="Time between checkpoints."),
    ] = 10.0,
    look_every: Annotated[int, whole("--log-every", least=1, most=10**9, help="Steps between lines of the log.")] = 50,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
    discard: Annotated[bool, flag("--discard", help="Delete earlier checkpoints and logs, and begin anew.")] = False,
    device: Device = "auto",
) -> None:
    """Pretrain the network's encoder on labelled images.

    It follows VMamba's published recipe, and runs under torchrun on any number of processes. The same command continues
    a training that was stopped. The plans must be those of `slicemamba plan --network paper` or `--network hybrid`.
    """
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.pretraining.images import Shards
    from nnunetv2_slicemamba.pretraining.pretrain import PretrainRequest
    from nnunetv2_slicemamba.pretraining.pretrain import pretrain as run
    from nnunetv2_slicemamba.pretraining.recipe import Recipe

    if fold is not None and slicing != "consensus":
        raise InputError("-f takes the fold's slicing and --slicing another one; give one of the two")
    given = [value is not None for value in (train_shards, val_shards, classes)]
    if any(given) and not all(given):
        raise InputError("webdataset shards need all of --train-shards, --val-shards and --classes")
    shards = Shards(train_shards, val_shards, classes) if all(given) else None  # type: ignore[arg-type]
    request = PretrainRequest(
        images,
        target,
        Recipe(
            epochs=epochs,
            warmup_epochs=warmup,
            batch_size=batch_size,
            accumulate=accumulate,
            image_size=image_size,
            learning_rate=learning_rate,
            drop_path=drop_path,
            precision=precision,
            seed=seed,
        ),
        slicing if fold is None else "fold",
        shards,
        folder,
        trainer,
        device,
        workers,
        save_minutes * 60,
        look_every,
        discard,
    )
    console = PlainConsole()
    selection = select(dataset, configuration, fold or "all", plans)
    done = run(selection, request, progress_console())
    if not done.first_process:
        raise typer.Exit(0 if done.finished else 130)
    if not done.finished:
        console.print(f"Stopped after step {done.step} of {done.total}")
        tell_stopped("pretrain")
        raise typer.Exit(130)
    work = (dataset, configuration, "FOLD", "-tr", DEFAULT_TRAINER, "-p", selection.plans_name)
    console.print(
        f"Best top-1 {done.best['top1']:.2f} % after epoch {done.best['epoch'] + 1} "
        f"({done.best['weights']} weights).\nWeights: {target}"
    )
    say_next(console, shell_line("nnUNetv2_train", *work, "-pretrained_weights", target))
