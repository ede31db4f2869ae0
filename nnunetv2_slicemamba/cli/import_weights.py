"""`slicemamba import`: published or own weights as a file for `nnUNetv2_train -pretrained_weights`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.cli.help import SHARE, listed
from nnunetv2_slicemamba.cli.options import (
    PLANS,
    SUPERNET_TRAINER,
    Configuration,
    Dataset,
    Plans,
    SupernetTrainer,
    choice,
    flag,
    fold_option,
    output_option,
    say_next,
    text,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import is_quiet

if TYPE_CHECKING:
    from nnunetv2_slicemamba.pretraining.import_file import ImportResult


EXAMPLES = (
    "slicemamba import vmunet_best.pth -d 501 -c 2d -p nnUNetSliceMambaPlans -o vmunet_ours.pth",
    "slicemamba import best.pth -d 501 -c 3d_fullres -p nnUNetSliceMambaPlans -o ours.pth --inflate center",
)


def add_commands(app: typer.Typer) -> None:
    app.command("import", **listed(SHARE, EXAMPLES))(import_)


def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The checkpoint.", show_default=False)],
    target: Annotated[Path, output_option("File to write, for -pretrained_weights.")],
    dataset: Dataset,
    configuration: Configuration,
    plans: Plans = PLANS,
    fold: Annotated[
        str | None, fold_option("Fold whose best_slicing.json the weights get. Default: see --slicing.")
    ] = None,
    slicing: Annotated[
        str | None,
        text(
            "--slicing",
            metavar="SLICING",
            help="Slicing that the weights get, as in `slicemamba slicing --set`. Default: the source's.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        choice(
            "--source",
            names=("slicemamba", "vmunet", "vmamba", "own"),
            help="Where the weights are from. Default: told from their names.",
        ),
    ] = None,
    average: Annotated[bool, flag("--ema", help="Take the moving average that was saved beside the weights.")] = False,
    supernet: Annotated[bool, flag("--supernet", help="Write weights for the supernet trainer.")] = False,
    widths: Annotated[
        str | None, choice("--widths", names=("select",), help="Take evenly spaced channels of a wider network.")
    ] = None,
    inflation: Annotated[
        str | None,
        choice("--inflate", names=("mean", "center"), help="How 2D kernels are made 3D, for a 3D configuration."),
    ] = None,
    trainer: SupernetTrainer = SUPERNET_TRAINER,
) -> None:
    """Turn published or own weights into pretrained weights.

    Weights of SliceMamba, VM-UNet and VMamba can be imported for the network of the plans. The plans must be those of
    `slicemamba plan --network paper` or `--network hybrid`. What does not fit is refused with a list of every mismatch.
    No code in the file is run.
    """
    from nnunetv2_slicemamba.common.folders import InputError
    from nnunetv2_slicemamba.planning.selection import select
    from nnunetv2_slicemamba.pretraining.import_file import ImportRequest, import_file
    from nnunetv2_slicemamba.pretraining.importing import Adaptations

    if widths not in (None, "select"):
        raise InputError(f"--widths is {widths!r}, it can only be 'select'")
    if fold is not None and slicing is not None:
        raise InputError("-f takes the fold's slicing and --slicing another one; give one of the two")
    request = ImportRequest(
        source,
        target,
        kind,
        average,
        slicing if fold is None else "fold",
        supernet,
        trainer,
        Adaptations(widths is not None, inflation),
    )
    show(PlainConsole(), target, import_file(select(dataset, configuration, fold or "all", plans), request))


def show(console: Console, target: Path, result: ImportResult) -> None:
    """Prints what was loaded, adapted, skipped and initialised."""
    source = result.record["source"]
    console.print(f"{source['file']}: {source['kind']} {source['contains']}, sha256 {source['sha256']}")
    table = Table(show_header=True, header_style="bold")
    for heading in ("", "weights", "what"):
        table.add_column(heading, justify="right" if heading == "weights" else "left")
    table.add_row("loaded", str(len(result.record["loaded"])), "as they are")
    for how, names in grouped({e.ours: ", ".join(e.changes) for e in result.imported.entries if e.changes}).items():
        table.add_row("adapted", str(len(names)), f"{how}: {abbreviated(names)}")
    for why, names in grouped(result.imported.skipped).items():
        table.add_row("skipped", str(len(names)), f"{why}: {abbreviated(names)}")
    if result.imported.initialised:
        names = list(result.imported.initialised)
        table.add_row("initialised", str(len(names)), f"not in the source: {abbreviated(names)}")
    console.print(table)
    distinct = "" if result.slicing is None else " ".join("x".join(map(str, t)) for t in sorted(set(result.slicing)))
    trainer = "SliceMambaTrainer" if result.slicing else "SliceMambaSupernetTrainer"
    work = (result.record["dataset"], result.record["configuration"], "FOLD")
    flags = ("-tr", trainer, "-p", result.record["plans_name"], "-pretrained_weights", target)
    lines = [
        f"Slicing: {distinct or '-'} ({result.slicing_origin})",
        f"Weights for {result.network}: {target}",
        f"Report: {result.record_file}",
    ]
    console.print("\n".join(lines))
    say_next(console, shell_line("nnUNetv2_train", *work, *flags))
    if result.slicing and not is_quiet():
        console.print("SliceMambaTrainer then uses the fold's slicing; nnU-Net starts the class heads anew.")


def grouped(reasons: dict[str, str]) -> dict[str, list[str]]:
    """name -> reason turned round: reason -> names."""
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    return found


def abbreviated(names: list[str]) -> str:
    """The first and the last of many names."""
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} ... {names[-1]}"
