"""`slicemamba plan`: fingerprint, plans and preprocessed data."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from nnunetv2_slicemamba.cli.options import Dataset
from nnunetv2_slicemamba.planning.sizes import NETWORKS, PAPER, SIZES


def add_commands(app: typer.Typer) -> None:
    app.command("plan")(plan)


def plan(
    dataset: Dataset,
    configurations: Annotated[
        list[str] | None, typer.Option("-c", help="Configurations to preprocess; default: all that the plans have.")
    ] = None,
    size: Annotated[str, typer.Option("--size", help=f"{', '.join(SIZES)}; {PAPER} is the paper's.")] = PAPER,
    gpu_memory: Annotated[float, typer.Option("--gpu-memory", help="GPU memory to plan for, in GB.")] = 8.0,
    plans_name: Annotated[
        str | None, typer.Option("-overwrite_plans_name", help="Another name for the plans, as in nnU-Net.")
    ] = None,
    processes: Annotated[int | None, typer.Option("-np", help="Processes for preprocessing.")] = None,
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
            help="paper (default); hybrid: convolutional stages around it; residual: nnU-Net's with S3 blocks added.",
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
    from nnunetv2_slicemamba.common.folders import InputError, require_folder
    from nnunetv2_slicemamba.planning.selection import require_dataset

    if size not in SIZES:
        raise InputError(f"size {size!r} does not exist; give one of {', '.join(SIZES)}")
    if not gpu_memory > 0:
        raise InputError(f"--gpu-memory is {gpu_memory}, it must be a positive number of GB; 8 is usual")
    if plans_name is not None and ("__" in plans_name or "/" in plans_name):
        raise InputError(f"plans cannot be named {plans_name!r}: nnU-Net splits its result folders at '__'")
    chosen = network_named(network, hybrid)
    if (blocks_from_stride is not None or decoder_blocks) and chosen != "residual":
        option = "--decoder-blocks" if decoder_blocks else "--blocks-from-stride"
        raise InputError(f"{option} is for --network residual, this plans {chosen}: leave it out, or give that network")
    name = require_dataset(dataset, "nnUNet_raw")
    require_folder("nnUNet_preprocessed", writable=True)

    from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess

    done = plan_and_preprocess(
        int(name[7:10]),
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
    console = Console()
    for configuration in done.reused:
        console.print(f"{configuration}: already preprocessed with the same settings, used as it is")
    console.print(
        f"Plans [bold]{done.plans_name}[/] of {name} are ready: pass -p {done.plans_name} to the next commands."
    )


def network_named(network: str | None, hybrid: bool) -> str:
    """The network that --network and --hybrid name together; InputError for one that does not exist, and for two."""
    from nnunetv2_slicemamba.common.folders import InputError

    if network is not None and network not in NETWORKS:
        raise InputError(f"--network {network!r} does not exist; give one of {', '.join(NETWORKS)}")
    if hybrid and network not in (None, "hybrid"):
        raise InputError(f"--hybrid and --network {network} name two networks: leave one out")
    return "hybrid" if hybrid else network or "paper"
