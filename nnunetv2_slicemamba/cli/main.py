"""Entry point of `slicemamba`: the subcommands, nnU-Net's way of listing values, and how errors are shown."""

from __future__ import annotations

import functools
import io
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

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
from nnunetv2_slicemamba.cli.help import Commands
from nnunetv2_slicemamba.cli.options import flag
from nnunetv2_slicemamba.cli.stopped import STOPPED, tell_stopped
from nnunetv2_slicemamba.common.console import forget_unusable_width
from nnunetv2_slicemamba.common.folders import InputError, check_numbers
from nnunetv2_slicemamba.common.stopping import interruptible
from nnunetv2_slicemamba.common.verbosity import QUIET, VERBOSE, set_verbosity, show_warnings_as_lines
from nnunetv2_slicemamba.common.version import __version__


class Program(Commands):
    """The subcommands; whatever ends one early becomes a message and an exit code.

    SLICEMAMBA_DEBUG=1 shows the traceback instead.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            tell_stopped(ctx.invoked_subcommand)
            raise typer.Exit(130) from None
        except SystemExit as ended:
            if ended.code in STOPPED:
                tell_stopped(ctx.invoked_subcommand)
            raise
        except BrokenPipeError:  # `| head`
            raise
        except Exception as error:
            # typer's own errors, of options that cannot be read, have an exit code
            if hasattr(error, "exit_code") or os.environ.get("SLICEMAMBA_DEBUG"):
                raise
            raise typer.Exit(show_error(error)) from error


app = typer.Typer(
    name="slicemamba",
    cls=Program,
    no_args_is_help=True,
    # plain text: typer's tables cut names and commands at the width of a terminal
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
)


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"slicemamba {__version__}")
        raise typer.Exit


@app.callback()
def program(
    quiet: Annotated[bool, flag("-q", "--quiet", help="Print results and errors only.")] = False,
    verbose: Annotated[
        bool,
        flag("-v", "--verbose", help="Also print warnings of libraries, and where an error's traceback is kept."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train SliceMamba in nnU-Net v2, and search its slicing.

    -q and -v may also stand behind a command. `slicemamba COMMAND --help` explains a command.
    """
    if quiet and verbose:
        raise InputError("-q and -v exclude each other: leave one out")
    if quiet or verbose:
        set_verbosity(QUIET if quiet else VERBOSE)


# in the order in which the help lists them, group by group
for module in (
    *(convert, plan),
    *(run, status, pretrain),
    *(holdout, search, slicing),
    *(evaluate, report, compare, rank),
    *(import_weights, export),
    *(doctor, register, trainer_path, demo),
):
    module.add_commands(app)

# what a shell calls at its start, and help, work whatever nnU-Net's variables hold
NEEDS_NO_NNUNET = {"trainer-path", "register", "-h", "--help", "--version"}
# flags that take several values after one another, as nnU-Net's do, where a command takes more than one: -f 0 1 2
LIST_FLAGS = ("-f", "--fold", "-c", "--configuration")
PROGRAM_FLAGS = ("-q", "--quiet", "-v", "--verbose")


def expand_lists(arguments: Sequence[str]) -> list[str]:
    """`-f 0 1` -> `-f 0 -f 1`, which is how the option parser reads lists.

    Where the command takes one value nothing is changed: the parser refuses another one, or takes it as its argument.
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    flags = _list_flags(command)
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


def program_flags_first(arguments: Sequence[str]) -> list[str]:
    """`plan -d 1 -q` -> `-q plan -d 1`: the flags that every command takes, where the option parser looks for them."""
    return sorted(arguments, key=lambda argument: argument not in PROGRAM_FLAGS)


@functools.cache
def _program() -> Any:
    return typer.main.get_command(app)


def _list_flags(command: str) -> list[str]:
    commands = _program().commands
    parameters = commands[command].params if command in commands else []
    return [name for name in LIST_FLAGS if any(name in p.opts and getattr(p, "multiple", False) for p in parameters)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 2 input that cannot be worked with, 1 a bug, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # names of files need not be text in any encoding
            stream.reconfigure(errors="backslashreplace")
    forget_unusable_width()
    show_warnings_as_lines()
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name, value in itertools.pairwise(["", *given]):
        if value == "":
            what = f"the value of {name} is empty" if name.startswith("-") else "an argument is empty"
            sys.exit(show_error(InputError(f"{what} (''); give one, or leave it out (is a shell variable unset?)")))
    try:
        os.getcwd()
    except FileNotFoundError:
        # libraries that are loaded from here on would end the process, or name files of theirs
        sys.exit(show_error(InputError("the working folder has been removed; change to one that exists (cd)")))
    try:
        if given and not NEEDS_NO_NNUNET.intersection(given):
            check_numbers()
    except InputError as error:
        sys.exit(show_error(error))
    try:
        with interruptible():
            _program()(expand_lists(program_flags_first(given)), prog_name="slicemamba")
    except OSError as error:  # the help, which is printed before there is a command to invoke, on a full disk
        end(show_error(error))
    except SystemExit as ended:
        end(ended.code)


def end(code: int | str | None) -> NoReturn:
    """Exits with a code, or with that of output which is still in the buffer and cannot be written."""
    try:
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()
    except OSError as error:
        # Python would write the buffer once more at its end, and print a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not code:
            code = 1 if isinstance(error, BrokenPipeError) else show_error(error)
    sys.exit(code)
