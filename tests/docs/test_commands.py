"""Every subcommand has a page that names its options, their defaults, and no other; shown calls can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from nnunetv2_slicemamba.cli.main import app
from tests.docs.site_pages import DOCS, REPOSITORY, code_lines

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PAGES = DOCS / "commands"
TEXTS = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "README.md"]
HELP = {"-h", "--help", "-q", "--quiet", "-v", "--verbose"}
HEAD = "| option | value | default | meaning |"


def options(command: str) -> dict[str, Any]:
    """What the command takes: an option's names, or an argument's name in help, -> its declaration."""
    found = {}
    for parameter in COMMANDS[command].params:
        is_argument = parameter.param_type_name == "argument"
        names = [parameter.metavar] if is_argument else [*parameter.opts, *parameter.secondary_opts]
        found.update(dict.fromkeys((name for name in names if name not in HELP), parameter))
    return found


def documented(command: str) -> dict[str, str]:
    """Name -> cell of its default, of the rows of the page's table of options."""
    text = (PAGES / f"{command}.md").read_text(encoding="utf-8")
    found = {}
    # below the table's head are its rule, the rows, and an empty line
    for row in text.partition(f"{HEAD}\n")[2].split("\n\n")[0].splitlines()[1:]:
        names, _, default, _ = (cell.strip() for cell in row.strip("|").split("|"))
        found.update(dict.fromkeys(re.findall(r"`([^`]+)`", names), default))
    return found


def test_every_command_has_a_page_and_every_page_a_command() -> None:
    assert {file.stem for file in PAGES.glob("*.md")} - {"index"} == set(COMMANDS)


def test_the_overview_lists_every_command() -> None:
    overview = (PAGES / "index.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"| [{name}]({name}.md) |" not in overview] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_names_exactly_the_options_that_there_are(command: str) -> None:
    assert set(documented(command)) == set(options(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_gives_the_defaults_that_hold(command: str) -> None:
    for name, cell in documented(command).items():
        default = options(command)[name].default
        if isinstance(default, bool) or not isinstance(default, (str, int, float, Path)) or default == "":
            continue
        assert cell == f"`{default}`", f"{name} of {command}"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_says_what_is_written_and_which_errors_there_are(command: str) -> None:
    text = (PAGES / f"{command}.md").read_text(encoding="utf-8")
    assert "\n## Errors\n" in text
    assert re.search(r"\n## What is written\n|[Ww]rites nothing|writes nothing", text)
    assert f"    $ slicemamba {command}" in text or f"`slicemamba {command}`" in text


@pytest.mark.parametrize("file", TEXTS, ids=[str(file.relative_to(REPOSITORY)) for file in TEXTS])
def test_shown_calls_use_only_what_there_is(file: Path) -> None:
    for line in code_lines(file.read_text(encoding="utf-8")):
        for call in re.findall(r"(?:^\$? ?|\$\(|[\"']|\b)slicemamba ([a-z-]+(?: [^\n]*)?)", line):
            command, *words = words_of(call)
            if command not in COMMANDS:
                assert line.lstrip("$ ")[:11] != "slicemamba " or command.startswith("-"), f"{line}: no such command"
                continue
            unknown = [w for w in words if re.match(r"--?[a-zA-Z]", w) and w not in {*options(command), *HELP}]
            assert unknown == [], line


def words_of(call: str) -> list[str]:
    """The words of a call, up to the quote, bracket or comment that ends it."""
    call = re.split(r"[)'\"|&;#]|  ", call)[0]
    return shlex.split(call)
