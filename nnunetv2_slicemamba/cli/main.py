"""Entry point of `slicemamba`: the subcommands, nnU-Net's way of listing values, and how errors are shown."""

from __future__ import annotations

import functools
import io
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

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
    status,
    trainer_path,
)
from nnunetv2_slicemamba.cli.errors import show_error
from nnunetv2_slicemamba.common.folders import InputError, check_numbers
from nnunetv2_slicemamba.common.notices import shown_as_lines
from nnunetv2_slicemamba.common.stopping import interruptible


class Commands(TyperGroup):
    """The subcommands; whatever ends one early becomes a message and an exit code.

    SLICEMAMBA_DEBUG=1 shows the traceback instead.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `| head`
            raise
        except Exception as error:
            # typer's own errors, of options that cannot be read, have an exit code
            if hasattr(error, "exit_code") or os.environ.get("SLICEMAMBA_DEBUG"):
                raise
            raise typer.Exit(show_error(error)) from error


app = typer.Typer(
    name="slicemamba",
    cls=Commands,
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
    status,
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

# what a shell calls at its start, and help, work whatever nnU-Net's variables hold
NEEDS_NO_NNUNET: tuple[list[str], ...] = ([], ["trainer-path"], ["register"], ["-h"], ["--help"])
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


@functools.cache
def _program() -> Any:
    return typer.main.get_command(app)


def _list_flags(command: str) -> list[str]:
    commands = _program().commands
    parameters = commands[command].params if command in commands else []
    return [flag for flag in LIST_FLAGS if any(flag in p.opts and getattr(p, "multiple", False) for p in parameters)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 input that cannot be worked with, 1 a bug, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # names of files need not be text in any encoding
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    for flag, value in itertools.pairwise(["", *given]):
        if value == "":
            what = f"the value of {flag} is empty" if flag.startswith("-") else "an argument is empty"
            sys.exit(show_error(InputError(f"{what} (''); give one, or leave it out (is a shell variable unset?)")))
    try:
        os.getcwd()
    except FileNotFoundError:
        # libraries that are loaded from here on would end the process, or name files of theirs
        sys.exit(show_error(InputError("the working folder has been removed; change to one that exists (cd)")))
    try:
        if given[:1] not in NEEDS_NO_NNUNET:
            check_numbers()
    except InputError as error:
        sys.exit(show_error(error))
    try:
        with interruptible(), shown_as_lines():
            _program()(expand_lists(given))
    except OSError as error:  # the help, which is printed before there is a command to invoke, on a full disk
        sys.exit(show_error(error))
