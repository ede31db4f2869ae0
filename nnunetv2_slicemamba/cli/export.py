"""`slicemamba export`: a fold's trained network as a file for other programs, or a model as a zip for nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import SHARE, listed
from nnunetv2_slicemamba.cli.options import (
    PLANS,
    Configuration,
    Dataset,
    Plans,
    choice,
    fold_option,
    output_option,
    text,
    trainer_option,
    whole,
)
from nnunetv2_slicemamba.common import checkpoint_names
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.verbosity import progress_console

EXAMPLES = (
    "slicemamba export -d 501 -c 2d -f 0 --format onnx -o lesions.onnx",
    "slicemamba export -d 501 -c 2d -f 0 1 2 3 4 --format zip",
)

ZIP = "zip"


def add_commands(app: typer.Typer) -> None:
    app.command("export", **listed(SHARE, EXAMPLES))(export)


def export(
    dataset: Dataset,
    configuration: Configuration,
    folds: Annotated[list[str], fold_option("Fold: 0, 1, ... or all; for a zip, several of them.")],
    format_name: Annotated[
        str,
        choice("--format", names=("onnx", "torchscript", "pt2", "zip"), help="Format of the file; zip: for nnU-Net."),
    ] = "onnx",
    plans: Plans = PLANS,
    trainer: Annotated[str, trainer_option("Trainer of the networks.")] = "SliceMambaTrainer",
    checkpoint: Annotated[
        str,
        text("-chk", "--checkpoint", metavar="NAME", help="Checkpoint of the fold, as in nnUNetv2_predict."),
    ] = checkpoint_names.FINAL,
    output: Annotated[
        Path | None,
        output_option("File to write. Default: network.onnx, .ts or .pt2 in the fold's folder, model.zip beside it."),
    ] = None,
    patches: Annotated[
        int, whole("--patches", least=1, most=10_000, help="Patches of a real case that are compared.")
    ] = 4,
) -> None:
    """Write a fold's network for other programs, or a model to a zip for nnU-Net.

    The network keeps its own slicing, and the file is checked on patches of a real case. The file computes one patch:
    logits (1, classes, *patch) from an image (1, channels, *patch) that is resampled and normalised as in nnU-Net. The
    exit code is 1 if file and network disagree. A zip holds all folds that -f names, and a model card;
    nnUNetv2_install_pretrained_model_from_zip installs it.
    """
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.common.library_errors import library_errors
    from nnunetv2_slicemamba.exporting.export import TOLERANCE, require_place, write_record
    from nnunetv2_slicemamba.exporting.export import export as export_network
    from nnunetv2_slicemamba.exporting.fold_network import find_checkpoint, load_fold_network
    from nnunetv2_slicemamba.exporting.formats import FORMATS
    from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.trainers.roles import require_final_trainer

    if format_name not in (*FORMATS, ZIP):
        raise InputError(f"format {format_name!r} does not exist; give one of {', '.join((*FORMATS, ZIP))}")
    if format_name == ZIP:
        return export_model(dataset, configuration, folds, plans, trainer, checkpoint, output)
    if len(folds) > 1:
        raise InputError(f"--format {format_name} writes one network, -f names {len(folds)} folds; give one of them")
    fold, chosen = folds[0], FORMATS[format_name]
    chosen.require()
    if output is not None:
        require_place(output, chosen.suffix)
    selection = select(dataset, configuration, fold, plans)
    require_final_trainer(trainer)
    folder = FoldFolder(selection, trainer)
    weights = find_checkpoint(folder, checkpoint)
    file = output or weights.parent / f"network{chosen.suffix}"
    require_place(file, chosen.suffix)
    console = PlainConsole()
    with progress_console().status("reading network and case") as status:
        source = load_fold_network(folder, weights, patches)
        status.update(f"exporting {count(source.network.n_blocks, 'block')}, minutes for large networks")
        other = "try another --format or PyTorch version"
        with library_errors("torch", f"PyTorch cannot write this network as {format_name}", other):
            parity = export_network(source, chosen, file)
    names = {"dataset": selection.dataset, "plans": selection.plans_name, "configuration": configuration, "fold": fold}
    record = write_record(file, source, chosen, parity, **names, trainer=trainer)
    say = f"{file} ({file.stat().st_size / 1e6:.1f} MB), parity in {record.name}"
    console.print(say)
    console.print(
        f"{parity.patches} patches of {parity.case}: largest difference of logits {parity.largest_difference:.1e} "
        f"({parity.relative_difference:.1e} of the largest), same label in {100 * parity.same_labels:.3f} % of the "
        f"voxels; {parity.file_seconds:.2f} s per patch on this CPU, the network itself {parity.network_seconds:.2f} s",
    )
    if not parity.holds:
        console.print(
            f"error: {file} does not compute what the network does: logits differ by "
            f"{parity.relative_difference:.1e} of the largest, at most {TOLERANCE:.0e} is rounding. Do not use it; try "
            "another --format or PyTorch version",
        )
        raise typer.Exit(1)


def export_model(
    dataset: str,
    configuration: str,
    folds: Sequence[str],
    plans: str | None,
    trainer: str,
    checkpoint: str,
    output: Path | None,
) -> None:
    """Writes the zip of a model; options as `export` has them."""
    from nnunetv2_slicemamba.common.checkpoint_names import FINAL
    from nnunetv2_slicemamba.common.nnunet_files import UNSTATED
    from nnunetv2_slicemamba.exporting.export import require_place
    from nnunetv2_slicemamba.exporting.fold_network import find_checkpoint
    from nnunetv2_slicemamba.exporting.model_zip import CARD, pack_model
    from nnunetv2_slicemamba.planning.fold_folder import FoldFolder
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.trainers.roles import require_final_trainer

    require_final_trainer(trainer)
    folders = [FoldFolder(select(dataset, configuration, fold, plans), trainer) for fold in dict.fromkeys(folds)]
    for folder in folders:
        find_checkpoint(folder, checkpoint)
    file = output or folders[0].path.parent / "model.zip"
    require_place(file, ".zip")
    console = PlainConsole()
    with progress_console().status(f"packing {count(len(folders), 'fold')}"):
        facts = pack_model(folders, checkpoint, file)
    console.print(f"{file} ({file.stat().st_size / 1e6:.1f} MB), its hash in {file.name}.json, {CARD} inside")
    if facts.licence == UNSTATED:
        console.print("the terms of the data are not in dataset.json ('licence'): find them out before you share this")
    if checkpoint != FINAL:
        console.print(f"the card has no Dice: nnU-Net validates {FINAL}, this model has {checkpoint}")
    elif not all(one.dice for one in facts.folds):
        console.print("a fold has no validation: its Dice is missing in the card ('nnUNetv2_train ... --val' makes it)")
