"""Text from outside is printed as it is; nothing in the package asks rich to read markup in it."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.common.console import PlainConsole, printable, styled

ROOT = Path(__file__).parents[2]
SOURCES = [
    file
    for folder in ("nnunetv2_slicemamba", "trainers", "search")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if not any(part.is_symlink() for part in file.parents)
]
MARKUP = re.compile(r"\[(/|bold|red|green|yellow|cyan|dim)[^]]*\]")
OTHER_CONSOLE = re.compile(r"(rich\.console\.|(?<![\w.]))Console\(|\.from_markup\(")
NASTY = ("[v2]", "[/b]", "[bold]x[/]", "a\\[/b]", "trailing\\", ":smile:", "[link=file:///x]y", "x" * 300)


def printed(*objects: object, width: int = 80) -> str:
    console = PlainConsole()
    console.file, console.width = io.StringIO(), width
    console.print(*objects)
    return console.file.getvalue()


@pytest.mark.parametrize("text", NASTY)
def test_text_is_printed_as_it_is(text: str) -> None:
    assert printed(f"JSON:  /results/{text}/x.json") == f"JSON:  /results/{text}/x.json\n"
    assert text in printed(styled(text, "bold"))


def test_a_command_in_a_table_stays_on_one_line_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "nnUNetv2_train " + " ".join(f"-option{n} value" for n in range(12))
    table = Table("step", "command")
    table.add_row("1", command)
    monkeypatch.delenv("COLUMNS", raising=False)
    console = PlainConsole()
    console.file = io.StringIO()
    console.print(table)
    assert command in console.file.getvalue()


@pytest.mark.parametrize("text", NASTY[:-1])
def test_cells_titles_rules_and_states_hold_text_as_it_is(text: str) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    assert printed(table).count(text) == 3
    console = PlainConsole()
    console.file = io.StringIO()
    console.rule(text)
    console.status(text)
    assert text in console.file.getvalue()
    # a plain console of rich does the same with `styled`
    other = Console(file=io.StringIO(), width=200)
    other.print(styled(text))
    assert other.file.getvalue() == f"{text}\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb", "a\\rb"),
        ("\x07\x08\x7f\x9b", "\\x07\\x08\\x7f\\x9b"),
        ("right\u202eleft", "right\\u202eleft"),
        ("bytes \udcff", "bytes \\udcff"),
        ("Zürich\u00a0京\ttab\nline", "Zürich\u00a0京\ttab\nline"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert expected.partition("\n")[0].partition("\t")[0] in printed(text)
    assert "\x1b" not in printed(text, styled(text))


def test_there_is_one_console_and_no_markup() -> None:
    """Any other console reads brackets in paths and messages as markup, and so does Text.from_markup."""
    assert len(SOURCES) > 200
    found = []
    for file in SOURCES:
        text = file.read_text(encoding="utf-8")
        if not MARKUP.search(text) and (file.name == "console.py" or not OTHER_CONSOLE.search(text)):
            continue
        for node in ast.walk(ast.parse(text)):
            source = ast.get_source_segment(text, node) or "" if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and MARKUP.search(node.value):
                found.append(f"{file}:{node.lineno}: {node.value!r}")
            elif OTHER_CONSOLE.match(source) or ".from_markup(" in source:
                found.append(f"{file}:{node.lineno}: {source}")
    assert found == []
