"""`slicemamba plan`: fingerprint, plans and preprocessed data."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.options import Dataset, gpu_memory_option, processes_option, say_next
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, RECOMMENDED, SIZES


def add_commands(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    dataset: Dataset,
    configurations: Annotated[
        list[str] | None, typer.Option("-c", help="Configurations to preprocess; default: all that the plans have.")
    ] = None,
    size: Annotated[str, typer.Option("--size", help=f"{', '.join(SIZES)}; {PAPER} is the paper's.")] = PAPER,
    gpu_memory: Annotated[float, gpu_memory_option()] = 8.0,
    plans_name: Annotated[
        str | None, typer.Option("-overwrite_plans_name", help="Another name for the plans, as in nnU-Net.")
    ] = None,
    processes: Annotated[int | None, processes_option("Processes for preprocessing.")] = None,
    verify: Annotated[bool, typer.Option("--verify_dataset_integrity", help="Check the dataset first.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Redo fingerprint and preprocessing.")] = False,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--activation-checkpointing", help="Compute blocks twice instead of keeping them: larger patches fit."
        ),
    ] = False,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help=f"paper; hybrid: convolutional stages around it; residual: nnU-Net's with S3 blocks added. Default: "
            f"{RECOMMENDED}.",
        ),
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="The same as --network hybrid.")] = False,
    blocks_from_stride: Annotated[
        int | None,
        typer.Option(
            "--blocks-from-stride",
            min=0,
            max=2**20,
            help="Of a residual network: S3 blocks at the stages of this stride or a larger one (8); 0: none.",
        ),
    ] = None,
    decoder_blocks: Annotated[
        bool, typer.Option("--decoder-blocks", help="Of a residual network: S3 blocks in the decoder too.")
    ] = False,
    overwrite_plans: Annotated[
        bool, typer.Option("--overwrite-plans", help="Overwrite other plans that networks were trained with.")
    ] = False,
) -> None:
    """Fingerprint, SliceMamba plans and preprocessing of a dataset in nnUNet_raw.

    Data that nnU-Net or an earlier call preprocessed with the same settings are used as they are. Plans that networks
    were trained with are only written again if they say the same.
    """
    from nnunetv2_slicemamba.common.dataset_names import dataset_id_of
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.common.library_errors import library_errors
    from nnunetv2_slicemamba.common.names import check_plans_name
    from nnunetv2_slicemamba.planning.selection import require_dataset

    if size not in SIZES:
        raise InputError(f"size {size!r} does not exist; give one of {', '.join(SIZES)}")
    if plans_name is not None:
        check_plans_name(plans_name)
    chosen = network_named(network, hybrid) or RECOMMENDED
    if (blocks_from_stride is not None or decoder_blocks) and chosen != "residual":
        option = "--decoder-blocks" if decoder_blocks else "--blocks-from-stride"
        raise InputError(f"{option} is for --network residual, this plans {chosen}: leave it out, or give that network")
    name = require_dataset(dataset, "nnUNet_raw")
    require_folder("nnUNet_preprocessed", writable=True)

    from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess
    from nnunetv2_slicemamba.planning.present_plans import plans_flags

    look = "its output above may say more, and --verify_dataset_integrity checks every file"
    with library_errors("nnunetv2", f"nnU-Net cannot plan and preprocess {name}", look):
        done = plan_and_preprocess(
            dataset_id_of(name),
            name,
            size,
            configurations,
            gpu_memory,
            plans_name,
            processes,
            verify,
            clean,
            checkpointing,
            overwrite_plans,
            chosen,
            blocks_from_stride,
            decoder_blocks,
        )
    console = PlainConsole()
    for file in done.set_aside:
        console.print(f"Was damaged, and is made anew; what was left of it: {file}")
    for configuration in done.reused:
        mended = done.mended.get(configuration, ())
        made = f", but for damaged cases, which are made anew: {', '.join(mended)}" if mended else ""
        said = f"{configuration}: already preprocessed with the same settings, used as it is{made}"
        console.print(said)
    planned = configurations or [*done.preprocessed, *done.reused]
    usual = "3d_fullres" if "3d_fullres" in planned else planned[0]
    flags = ("-d", dataset, "-c", usual, *plans_flags(require_folder("nnUNet_preprocessed") / name, done.plans_name))
    console.print(f"Plans {done.plans_name} of {name} are ready.")
    say_next(console, shell_line("slicemamba", "run", *flags))


def network_named(network: str | None, hybrid: bool) -> str | None:
    """The network that --network and --hybrid name together, if any; InputError for an unknown one, and for two."""
    from nnunetv2_slicemamba.common.folders import InputError

    if network is not None and network not in NETWORKS:
        raise InputError(f"--network {network!r} does not exist; give one of {', '.join(NETWORKS)}")
    if hybrid and network not in (None, "hybrid"):
        raise InputError(f"--hybrid and --network {network} name two networks: leave one out")
    return "hybrid" if hybrid else network
