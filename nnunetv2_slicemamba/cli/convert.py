"""`slicemamba convert`: public datasets, and one's own folders, to nnU-Net raw data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.cli.help import DATA, listed
from nnunetv2_slicemamba.cli.options import processes_option, say_next, whole
from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.verbosity import progress_console
from nnunetv2_slicemamba.datasets.converter import Converter
from nnunetv2_slicemamba.datasets.registry import all_converters, converter_of

EXAMPLES = (
    "slicemamba convert isic2017 /data/isic2017 -d 17",
    "slicemamba convert folders --images ct --masks organs -d 501 --labels liver,tumour --split holdout:0.2:0",
)


def add_commands(app: typer.Typer) -> None:
    app.command("convert", **listed(DATA, EXAMPLES))(convert)


def help_of_name() -> str:
    """`isic2017, ..., or folders for your own images.`"""
    keys = [converter.key for converter in all_converters() if not converter.two_folders]
    return f"{', '.join(keys)}, or folders for your own images."


def convert(
    key: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help=help_of_name()),
    ] = None,
    source: Annotated[Path | None, typer.Argument(metavar="SOURCE", help="The unpacked download.")] = None,
    dataset_id: Annotated[
        int | None, whole("-d", "--dataset", metavar="ID", least=1, most=999_999, help="ID of the new dataset, from 1.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="SPLIT",
            help="published; random:SEED, five folds; holdout:SHARE:SEED, e.g. holdout:0.2:0, a test set and five "
            "folds; by-sequence[:SEED], clinicdb's videos kept apart; none.",
        ),
    ] = "published",
    resize: Annotated[
        tuple[int, int] | None,
        whole("--resize", least=1, most=20_000, metavar="H W", help="256 256 as in the paper; default: native."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name after DatasetXXX_.")] = None,
    train: Annotated[
        str,
        typer.Option(
            "--train", metavar="joint|own", help="Polyp benchmark: joint trains on both datasets as published, or own."
        ),
    ] = "joint",
    organs: Annotated[
        int, whole("--organs", least=8, most=13, metavar="8|13", help="synapse: 8 organs, or all 13.")
    ] = 8,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            metavar="FOLDER",
            help="folders: the images, 2D or 3D. Several channels: files CASE_0000, CASE_0001, or one --images each.",
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="FOLDER", help="folders: the masks, named as the images.")
    ] = None,
    test_images: Annotated[
        list[Path] | None,
        typer.Option("--test-images", metavar="FOLDER", help="folders: images to be held out, as --images."),
    ] = None,
    test_masks: Annotated[
        Path | None,
        typer.Option(
            "--test-masks", metavar="FOLDER", help="folders: the masks of --test-images, where they are known."
        ),
    ] = None,
    channels: Annotated[
        str,
        typer.Option(
            "--channels",
            metavar="NAME,NAME,...",
            help="folders: names of the channels, by commas; nnU-Net normalises CT in its own way.",
        ),
    ] = "",
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="NAME,NAME,...",
            help="folders: names of the labels 1, 2, ..., by commas. Default: foreground.",
        ),
    ] = "",
    processes: Annotated[int | None, processes_option("How many files to work on at once.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show what can be converted, and the terms of use.")] = False,
) -> None:
    """Convert a public dataset, or your own images, to nnU-Net's format.

    Everything is checked before anything is written. The same command continues an interrupted conversion.
    """
    console = PlainConsole()
    if listing:
        show_converters(console)
        return
    from nnunetv2_slicemamba.common.counts import count
    from nnunetv2_slicemamba.common.folders import InputError, named_folder, require_folder
    from nnunetv2_slicemamba.datasets.convert import convert as run
    from nnunetv2_slicemamba.datasets.request import Request
    from nnunetv2_slicemamba.datasets.splits import FOLDS, parse_split

    if key is None or dataset_id is None:
        raise InputError("give the dataset's name and -d ID; 'slicemamba convert --list' shows the names")
    converter = converter_of(key)
    request = Request(
        key=key,
        sources=choose_sources(converter, source, images or [], masks),
        dataset_id=dataset_id,
        split=parse_split(split),
        name=name,
        resize=resize,
        train=train,
        organs=organs,
        labels=names_in(labels),
        channels=names_in(channels),
        test_images=tuple(test_images or ()),
        test_masks=test_masks,
    )
    raw = require_folder("nnUNet_raw", writable=True)
    preprocessed, results = named_folder("nnUNet_preprocessed"), named_folder("nnUNet_results")
    limit = processes or min(os.cpu_count() or 1, converter.files_at_once)
    done = run(request, raw, preprocessed, results, limit, progress_console())
    for note in done.conversion.notes:
        progress_console().print(f"  {note}")
    if converter.home:  # one's own data come from nowhere, and their terms are their owner's matter
        progress_console().print(f"  terms: {converter.licence}")
    ready = len(done.conversion.cases) - done.written
    console.print(
        f"{done.folder}: {count(done.conversion.number('Tr'), 'training case')}, "
        f"{done.conversion.number('Ts')} held out; {done.written} written now, {ready} there already"
        f"{'; ' if done.conversion.left_out else ''}{done.conversion.left_out}.",
    )
    flat = done.conversion.description.get("overwrite_image_reader_writer") == "NaturalImage2DIO"
    # beside a source's own division, further folds are there for other things
    folds = ("-f", "0") if done.conversion.folds and request.split.kind == "published" else ()
    if not done.conversion.folds and done.conversion.number("Tr") < FOLDS:  # nnU-Net cannot draw any
        folds = ("-f", "all")
    tests = ("--predict",) if done.conversion.number("Ts") else ()
    flags = ("-d", dataset_id, "-c", "2d" if flat else "3d_fullres", *folds, *tests)
    say_next(console, shell_line("slicemamba", "run", *flags))


def names_in(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def choose_sources(
    converter: Converter, source: Path | None, images: list[Path], masks: Path | None
) -> tuple[Path, ...]:
    """SOURCE, or for `folders` those of images and masks; InputError for the wrong one of the two ways."""
    from nnunetv2_slicemamba.common.folders import InputError

    if converter.two_folders:
        if source is not None or not images or masks is None:
            raise InputError(f"convert {converter.key} takes --images DIR and --masks DIR instead of a source")
        return (*images, masks)
    if images or masks is not None:
        raise InputError(f"--images and --masks are for 'convert folders'; {converter.key} takes one source folder")
    if source is None:
        raise InputError(f"give the folder with the download: slicemamba convert {converter.key} SOURCE -d ID")
    return (source,)


def show_converters(console: Console) -> None:
    """The datasets with their layouts, terms, splits and home pages."""
    table = Table(show_lines=True)
    table.add_column("name", no_wrap=True)
    table.add_column("layouts of the source, where to get it, terms of use, what --split published does")
    for converter in all_converters():
        lines = [f"layout  {layout.words}" for layout in converter.layouts]
        lines += [f"where   {converter.home or '-'}", f"terms   {converter.licence}", f"split   {converter.split}"]
        table.add_row(converter.key, "\n".join(lines))
    console.print(table)
