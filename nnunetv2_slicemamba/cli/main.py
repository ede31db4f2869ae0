"""Entry point of `slicemamba`: the subcommands, nnU-Net's way of listing values, and how errors are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from rich.console import Console

from nnunetv2_slicemamba.cli import (
    compare,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    holdout,
    import_weights,
    plan,
    pretrain,
    rank,
    register,
    report,
    run,
    search,
    slicing,
    trainer_path,
)
from nnunetv2_slicemamba.common.stopping import interruptible

app = typer.Typer(
    name="slicemamba",
    help="SliceMamba with its architecture search inside nnU-Net v2.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# in the order in which the help lists them
for module in (
    convert,
    plan,
    holdout,
    search,
    slicing,
    run,
    compare,
    rank,
    import_weights,
    export,
    pretrain,
    trainer_path,
    register,
    doctor,
    evaluate,
    report,
    demo,
):
    module.add_commands(app)

# flags that take several values after one another, as nnU-Net's do, where a command takes more than one: -f 0 1 2
LIST_FLAGS = ("-f", "-c")


def expand_lists(arguments: Sequence[str]) -> list[str]:
    """`-f 0 1` -> `-f 0 -f 1`, which is how the option parser reads lists.

    Where the command takes one value nothing is changed: the parser refuses another one, or takes it as its argument.
    """
    flags = _list_flags(arguments[0]) if arguments else []
    expanded: list[str] = []
    flag = None
    taken = 0
    for argument in arguments:
        if argument in flags:
            flag, taken = argument, 0
        elif argument.startswith("-"):
            flag = None
        elif flag is not None:
            if taken:
                expanded.append(flag)
            taken += 1
        expanded.append(argument)
    return expanded


def _list_flags(command: str) -> list[str]:
    commands = getattr(typer.main.get_command(app), "commands", {})
    parameters = commands[command].params if command in commands else []
    return [flag for flag in LIST_FLAGS if any(flag in p.opts and getattr(p, "multiple", False) for p in parameters)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 and one message where the input cannot be worked with.

    SLICEMAMBA_DEBUG=1 shows the traceback instead.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with interruptible():
            app(expand_lists(given))
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("SLICEMAMBA_DEBUG"):
            raise
        Console(stderr=True).print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
