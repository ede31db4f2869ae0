"""The help of the commands: groups, examples, names of options that older versions had, and its layout.

It is plain text: nothing is cut at the width of a terminal, and an example is one line that can be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from nnunetv2_slicemamba.common.folders import InputError

DATA, TRAIN, SEARCH, JUDGE, SHARE, SET_UP = "Data", "Train", "Search", "Judge", "Share", "Set-up"
GROUPS = (DATA, TRAIN, SEARCH, JUDGE, SHARE, SET_UP)

# accepted for the sake of scripts, and shown nowhere
OLD_NAMES = {
    "--overwrite-plans": "--force",
    "-overwrite_plans_name": "--plans",
    "--to": "--output",
}


class Command(TyperCommand):
    """A command whose help ends with examples, and which takes the options' old names, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name: set(parameter.opts) for parameter in self.params for name in parameter.opts}
        renamed = []
        for word in args:
            name, equals, value = word.partition("=")
            today = OLD_NAMES.get(name)
            if name in known or today not in known:
                renamed.append(word)
            elif known[today].isdisjoint(args):
                renamed.append(f"{today}{equals}{value}")
            else:
                raise InputError(f"{name} is the former name of {today}, which is given, too: leave one of them out")
        rest: list[str] = super().parse_args(ctx, renamed)
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [one for one in self.params if one.param_type_name == "argument"]
        return ["[OPTIONS]", *(f"{one.metavar}" if one.required else f"[{one.metavar}]" for one in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx)
            if record is not None:
                # typer adds Python's type to an argument
                name = one.metavar if one.param_type_name == "argument" else record[0]
                rows[one.param_type_name].append((name or "", record[1]))
        for kind, found in rows.items():
            if found:
                with formatter.section(f"{kind.title()}s"):
                    formatter.write_dl(found)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Commands(TyperGroup):
    """The list of commands, by groups, each with the first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        width = max(map(len, shown))
        for group in GROUPS:
            with formatter.section(group):
                formatter.write_dl(
                    [
                        (name.ljust(width), first_sentence(command.help or ""))
                        for name, command in shown.items()
                        if command is not None and getattr(command, "rich_help_panel", None) == group
                    ]
                )


def listed(group: str, examples: Sequence[str], cls: type[Command] = Command) -> dict[str, Any]:
    """Arguments of `app.command`: the group that the command is listed in, and examples for the end of its help."""
    return {"cls": cls, "rich_help_panel": group, "epilog": "\n".join(examples)}


def first_sentence(text: str) -> str:
    """The first paragraph of a help text, on one line."""
    return " ".join(text.split("\n\n")[0].split())
