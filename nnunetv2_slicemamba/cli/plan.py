"""`slicemamba plan`: fingerprint, plans and preprocessed data."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.cli.help import DATA, listed
from nnunetv2_slicemamba.cli.options import (
    Dataset,
    candidates_option,
    choice,
    configuration_option,
    flag,
    gpu_memory_option,
    plans_option,
    processes_option,
    say_next,
    whole,
)
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import libraries_heard, progress_console
from nnunetv2_slicemamba.planning.sizes import BLOCKS_FROM_STRIDE, GPU_MEMORY, NETWORKS, PAPER, RECOMMENDED, SIZES

EXAMPLES = (
    "slicemamba plan -d 501 -c 2d",
    "slicemamba plan -d 501 -c 3d_fullres --size S --gpu-memory 11 --verify_dataset_integrity",
)


def add_commands(app: typer.Typer) -> None:
    app.command("plan", **listed(DATA, EXAMPLES))(plan)


def plan(
    dataset: Dataset,
    configurations: Annotated[
        list[str] | None, configuration_option("Configurations to preprocess. Default: all that the plans have.")
    ] = None,
    size: Annotated[
        str, choice("--size", names=tuple(SIZES), help=f"Widths of the network; {PAPER} has nnU-Net's or the paper's.")
    ] = (PAPER),
    network: Annotated[
        str | None,
        choice(
            "--network",
            names=NETWORKS,
            help="residual: nnU-Net's network with SliceMamba blocks, recommended. paper: the published network. "
            f"hybrid: the published network with convolutional stages. Default: {RECOMMENDED}.",
        ),
    ] = None,
    hybrid: Annotated[bool, flag("--hybrid", help="The same as --network hybrid.")] = False,
    gpu_memory: Annotated[float, gpu_memory_option("GPU memory to plan for.")] = GPU_MEMORY,
    plans_name: Annotated[str | None, plans_option("Another name for the plans. Default: by network and size.")] = None,
    processes: Annotated[int | None, processes_option("Processes for preprocessing.")] = None,
    verify: Annotated[bool, flag("--verify_dataset_integrity", help="Check every file of the dataset first.")] = False,
    clean: Annotated[bool, flag("--clean", help="Redo fingerprint and preprocessing.")] = False,
    checkpointing: Annotated[
        bool,
        flag("--activation-checkpointing", help="Compute blocks twice to save memory: larger patches fit."),
    ] = False,
    blocks_from_stride: Annotated[
        int | None,
        whole(
            "--blocks-from-stride",
            least=0,
            most=2**20,
            help="Residual network: S3 blocks at the stages of this stride or a larger one. 0: none. "
            f"Default: {BLOCKS_FROM_STRIDE}.",
        ),
    ] = None,
    decoder_blocks: Annotated[
        bool, flag("--decoder-blocks", help="Residual network: S3 blocks in the decoder, too.")
    ] = False,
    candidates: Annotated[
        str,
        candidates_option(
            "What the search chooses from for a block: paper (thickness 2 or 4 per axis); wide (also 1 and 8 on all "
            "axes, no-scan and no-block); or a list such as 1,2x4,4@h,no-scan."
        ),
    ] = "paper",
    force: Annotated[bool, flag("--force", help="Overwrite plans that networks were trained with.")] = False,
) -> None:
    """Plan the network of a dataset, and preprocess its images.

    The dataset lies in nnUNet_raw. Data that nnU-Net or an earlier call preprocessed with the same settings are used as
    they are. Plans that networks were trained with are not overwritten by other plans, unless --force is given.
    """
    from nnunetv2_slicemamba.common.dataset_names import dataset_id_of
    from nnunetv2_slicemamba.common.folders import InputError, require_apart, require_folder
    from nnunetv2_slicemamba.common.library_errors import library_errors
    from nnunetv2_slicemamba.common.names import check_plans_name
    from nnunetv2_slicemamba.planning.outside_plans import refuse_stock_name
    from nnunetv2_slicemamba.planning.selection import require_dataset

    if size not in SIZES:
        raise InputError(f"size {size!r} does not exist; give one of {', '.join(SIZES)}")
    if plans_name is not None:
        check_plans_name(plans_name)
        refuse_stock_name(plans_name)
    chosen = network_named(network, hybrid) or RECOMMENDED
    if (blocks_from_stride is not None or decoder_blocks) and chosen != "residual":
        option = "--decoder-blocks" if decoder_blocks else "--blocks-from-stride"
        raise InputError(f"{option} is for --network residual, this plans {chosen}: leave it out, or give that network")
    name = require_dataset(dataset, "nnUNet_raw")
    require_folder("nnUNet_preprocessed", writable=True)
    require_apart("nnUNet_raw", "nnUNet_preprocessed")

    from nnunetv2_slicemamba.planning.preprocessing import plan_and_preprocess
    from nnunetv2_slicemamba.planning.present_plans import plans_flags

    look = "its output above may say more, and --verify_dataset_integrity checks every file"
    with library_errors("nnunetv2", f"nnU-Net cannot plan and preprocess {name}", look), libraries_heard():
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
            force,
            chosen,
            blocks_from_stride,
            decoder_blocks,
            candidates,
        )
    console, shown = PlainConsole(), progress_console()
    for file in done.set_aside:
        shown.print(f"Was damaged, and is made anew; what was left of it: {file}")
    for configuration in done.reused:
        mended = done.mended.get(configuration, ())
        made = f", but for damaged cases, which are made anew: {', '.join(mended)}" if mended else ""
        said = f"{configuration}: already preprocessed with the same settings, used as it is{made}"
        shown.print(said)
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
