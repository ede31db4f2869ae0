"""A whole run: on this machine, in a row or at once, or submitted to a cluster; and what to type next."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.folders import named_folder
from nnunetv2_slicemamba.common.other_processes import host
from nnunetv2_slicemamba.common.provenance import now
from nnunetv2_slicemamba.common.registration import export_line, is_found_by_nnunet
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import is_quiet, progress_console
from nnunetv2_slicemamba.pipeline.at_once import only_run, run_at_once
from nnunetv2_slicemamba.pipeline.ending_steps import test_cases
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings, summary_dice
from nnunetv2_slicemamba.pipeline.graph import ending_steps_of, graph_of, read_run, run_folder, write_run
from nnunetv2_slicemamba.pipeline.in_a_row import StepsInARow, run_fold, totals
from nnunetv2_slicemamba.pipeline.preparing import (
    Planning,
    draw_folds,
    is_planned,
    named_selections,
    planning_step,
    prepare,
    prepare_folds,
)
from nnunetv2_slicemamba.pipeline.slicings import tell_slicings
from nnunetv2_slicemamba.pipeline.slurm.options import SlurmOptions, refuse_unshared_folders
from nnunetv2_slicemamba.pipeline.slurm.submission import submit_run
from nnunetv2_slicemamba.pipeline.step import Command
from nnunetv2_slicemamba.planning.first_stage import require_first_stage
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
from nnunetv2_slicemamba.planning.selection import Selection

if TYPE_CHECKING:
    from nnunetv2_slicemamba.pipeline.places import Place


def run_here(
    selections: Sequence[Selection],
    settings: RunSettings,
    planning: Planning,
    places: Sequence[Place],
    console: Console,
) -> None:
    """Takes all steps of folds on this machine, planning first, and shows their Dice on the console.

    selections: by their names alone, where there are no plans yet. places: of steps at once, if any.
    """
    first, shown = selections[0], progress_console()
    folds = [str(selection.fold) for selection in selections]
    names = (first.dataset, first.configuration)
    planned = planning_step(selections, planning, settings.sliced)
    graph = [planned, *graph_of(selections, settings)]
    steps = StepsInARow(len(graph), shown)
    shown.print(
        f"{first.dataset}, {first.configuration}, {first.plans_name}, {'fold' if len(folds) == 1 else 'folds'} "
        f"{', '.join(folds)}: {totals(graph)}."
    )
    needed, began = steps.begin_step(planned), time.monotonic()
    prepare(*names, first.plans_name, planning, shown, settings.sliced)
    if isinstance(needed, Command):
        steps.end(planned, began)
    selections = named_selections(*names, folds, first.plans_name, any_network=not settings.sliced)
    for selection in selections:
        if not FoldFolder(selection, settings.trainer).is_trained:
            require_first_stage(selection, settings.trainer)
    endings = ending_steps_of(selections, settings)
    prepare_folds(selections, settings, planning, shown)
    if settings.sliced and not settings.search:
        tell_slicings(selections, settings, shown)
    title = f"{settings.trainer}, {first.configuration}"
    if places:
        run_several(selections, settings, places, shown, title)
        dice = [summary_dice(FoldFolder(selection, settings.trainer).summary) for selection in selections]
    else:
        dice = [run_fold(selection, settings, steps) for selection in selections]
        for step in endings:
            steps.take(step)
    table = Table("fold", "validation Dice")
    for selection, value in zip(selections, dice, strict=True):
        table.add_row(str(selection.fold), f"{value:.4f}")
    console.print(title)  # over the table it would be wrapped to its width
    console.print(table)
    if not is_quiet():
        tell_next(selections, settings, console)


def tell_next(selections: Sequence[Selection], settings: RunSettings, console: Console) -> None:
    """Says what to type when a run has ended."""
    from nnunetv2_slicemamba.trainers import TRAINERS  # which loads PyTorch

    first, raw = selections[0], named_folder("nnUNet_raw")
    tests = 0 if raw is None else test_cases(raw / first.dataset)
    flags = ["-d", first.dataset, "-i", "INPUT", "-o", "OUTPUT", "-c", first.configuration, "-p", first.plans_name]
    flags += ["-tr", settings.trainer, "-f", *(str(selection.fold) for selection in selections)]
    predict = shell_line("nnUNetv2_predict", *flags, "-device", settings.device)
    which = "the ensemble of the folds" if len(selections) > 1 else f"fold {first.fold}"
    console.print(f"Predict other images, named as in imagesTs, with {which}:\n  {predict}")
    if settings.trainer in TRAINERS and not is_found_by_nnunet():
        console.print(f"  for which nnU-Net must find the trainer: slicemamba register, once, or {export_line()}")
    if settings.predict:
        return
    if tests and first.configuration_manager.previous_stage_name is None:
        console.print(
            f"Next: {shell_line('slicemamba', *sys.argv[1:], '--predict')}\n"
            f"  predicts the {tests} test images, evaluates them if there is truth, and writes the report"
        )
    else:
        console.print(f"Next: {shell_line('slicemamba', 'report', '-d', first.dataset)}")


def run_several(
    selections: Sequence[Selection], settings: RunSettings, places: Sequence[Place], console: Console, title: str
) -> None:
    """Takes the steps of all folds in places at once."""
    folder = run_folder(selections, settings)
    with only_run(folder):
        draw_folds(selections, settings)
        command = shell_line("slicemamba", *sys.argv[1:])
        write_run(folder, selections, settings, command=command, process=os.getpid(), host=host(), started=now())
        # the first step was planning
        run_at_once(graph_of(selections, settings), places, folder, console, title, before=1)


def submit(
    selections: Sequence[Selection], settings: RunSettings, planning: Planning, options: SlurmOptions, console: Console
) -> None:
    """Submits the steps of all folds to SLURM, and says what was submitted."""
    refuse_unshared_folders()
    first, folder = selections[0], run_folder(selections, settings)
    with only_run(folder):
        # then this takes no time; a baseline's data are never made here
        if not settings.sliced or is_planned(first):
            names = (first.dataset, first.configuration, first.plans_name)
            prepare(*names, planning, progress_console(), settings.sliced)
            prepare_folds(selections, settings, planning, progress_console())
            draw_folds(selections, settings)
        said = {"command": shell_line("slicemamba", *sys.argv[1:]), "process": os.getpid(), "host": host()}
        write_run(folder, selections, settings, **said, started=now(), planning=asdict(planning), jobs={})
        steps, _ = read_run(folder)
        submitted = submit_run(steps, folder, options, settings.device)
    if not submitted:
        console.print("All steps are finished: nothing was submitted.")
        return
    table = Table("step", "job", "after")
    for one in submitted:
        table.add_row(one.step.title, one.job, one.dependency or "")
    console.print(table)
    for command, what in () if is_quiet() else (("status", "See them"), ("cancel", "End them")):
        console.print(f"{what}: {shell_line('slicemamba', command, '-d', first.dataset)}")
