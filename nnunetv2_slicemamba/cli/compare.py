"""`slicemamba compare`: trains the searched slicing and controls, and compares their Dice."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.comparison_options import Output, Supernet, Trainer
from nnunetv2_slicemamba.cli.help import JUDGE, listed
from nnunetv2_slicemamba.cli.options import PLANS, Configuration, Dataset, Device, Fold, Plans, flag, text, whole
from nnunetv2_slicemamba.cli.place_options import AtOnce, Gpus, PerGpu
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import DEFAULT_TRAINER
from nnunetv2_slicemamba.common.verbosity import is_verbose, progress_console

EXAMPLES = (
    "slicemamba compare -d 501 -c 2d -f 0 -tr SliceMambaTrainer_100epochs",
    "slicemamba compare -d 501 -c 2d -f 0 --arms searched,2x4,random:3 --repeats 2 --dry-run",
)


def add_commands(app: typer.Typer) -> None:
    app.command("compare", **listed(JUDGE, EXAMPLES))(compare)


def compare(
    dataset: Dataset,
    configuration: Configuration,
    fold: Fold,
    plans: Plans = PLANS,
    trainer: Trainer = DEFAULT_TRAINER,
    arms: Annotated[
        str | None,
        text(
            "--arms",
            metavar="ARM,ARM,...",
            help="Slicings to train: searched, consensus, front:K, 2x4 (2x4x2 in 3D), no-scan, cheapest, random:N for "
            "the seeds 0 to N-1, random:seed=S, random-at-budget:N, FILE or NAME=FILE. Default: searched, random:3 and "
            "every candidate in all blocks.",
        ),
    ] = None,
    repeats: Annotated[
        int, whole("--repeats", least=1, most=1000, help="Trainings per arm; their spread is the noise.")
    ] = 1,
    supernet_trainer: Supernet = None,
    output: Output = None,
    device: Device = "auto",
    gpus: Gpus = None,
    per_gpu: PerGpu = 1,
    at_once: AtOnce = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Only list what would be run.")] = False,
    collect_only: Annotated[bool, flag("--collect", help="Only show what is there.")] = False,
) -> None:
    """Train the searched slicing and controls, and compare their Dice.

    All are trained with the same settings and compared on the fold's validation cases. Every training has a folder of
    its own that serves nnU-Net's commands as nnUNet_results. Finished trainings are skipped and unfinished ones
    continued, so the same command continues a comparison that was stopped. Arms and repeats can be added later. With
    --gpus or --at-once several train side by side. -v shows all of nnU-Net's output.

    An arm is a slicing that is compared. Repeated trainings of one slicing differ too, since nnU-Net does not seed its
    augmentation (--repeats). A difference between arms means something only if it is larger than that.

    The validation Dice is optimistic for 'searched' and 'consensus' where the search chose on the same cases. Let it
    choose on others (`slicemamba holdout`), or judge on held-out cases.
    """
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.comparison.arms import default_arms, parse_arms
    from nnunetv2_slicemamba.comparison.compare import CompareSettings, write_result
    from nnunetv2_slicemamba.comparison.compare import compare as run
    from nnunetv2_slicemamba.comparison.folder import RESULTS_FILE, comparison_folder
    from nnunetv2_slicemamba.comparison.tables import show_result
    from nnunetv2_slicemamba.pipeline.places import places_for
    from nnunetv2_slicemamba.planning.selection import choose_device, select
    from nnunetv2_slicemamba.trainers.roles import require_trainer_from_scratch

    if dry_run and collect_only:
        raise InputError("--dry-run and --collect exclude each other; give one of them")
    require_trainer_from_scratch(trainer)
    selection = select(dataset, configuration, fold, plans).with_blocks()
    require_folder("nnUNet_results", writable=not dry_run)
    folder = comparison_folder(selection, trainer, output)
    console = PlainConsole()
    if collect_only:
        named = [arm.name for arm in parse_arms(arms)] if arms is not None else None
        result = write_result(folder, named)
    else:
        chosen = tuple(parse_arms(default_arms(selection.candidates) if arms is None else arms))
        on = choose_device(device).type
        settings = CompareSettings(chosen, repeats, on, supernet_trainer, is_verbose())
        places = places_for(on, gpus, per_gpu, at_once)
        done = run(folder, settings, console if dry_run else progress_console(), dry_run, places)
        if done is None:
            return
        result = done
    show_result(result, f"{selection.dataset}, {configuration}, fold {fold}, {trainer}", console)
    console.print(f"Results: {folder.root / RESULTS_FILE}")
