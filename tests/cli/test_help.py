"""The help of every command: its group, its first sentence, values as people write them, and examples that work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from nnunetv2_slicemamba.cli.help import GROUPS, OLD_NAMES
from nnunetv2_slicemamba.cli.main import app, expand_lists
from tests.cli.commands import called

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# in every command that has them
SHORT_AND_LONG = {
    "-d": "--dataset",
    "-c": "--configuration",
    "-f": "--fold",
    "-p": "--plans",
    "-tr": "--trainer",
    "-device": "--device",
    "-np": "--processes",
    "-o": "--output",
    "-chk": "--checkpoint",
    "-djfile": "--dataset-json",
}


def test_the_list_shows_every_command_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = called("--help").out
    assert re.findall(r"^([A-Z][\w-]+):$", listed, re.MULTILINE) == ["Options", *GROUPS]
    assert [name for name in COMMANDS if not re.search(rf"^  {name} +[A-Z]", listed, re.MULTILINE)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_begins_with_one_sentence_that_says_what_to_do(command: str) -> None:
    sentence = " ".join(COMMANDS[command].help.split("\n\n")[0].split())
    assert re.fullmatch(r"[A-Z][a-z]+[^s] [^.]*\.", sentence), "begins with 'Verb ', and is one sentence"
    assert len(sentence) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_shows_no_type_of_python(command: str) -> None:
    assert re.findall(r"<\w.*?>|\b(?:TEXT|INTEGER|FLOAT|BOOLEAN|PATH)\b", called(command, "--help").out) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_help_are_understood_by_the_command(command: str, tmp_path: Path) -> None:
    examples = COMMANDS[command].epilog.splitlines()
    assert len(examples) == 2
    for example in examples:
        assert f"\n  {example}\n" in called(command, "--help").out, "on one line"
        name, *words = shlex.split(re.split("[)>]", example.partition("slicemamba ")[2])[0])
        assert name == command
        COMMANDS[command].make_context(command, expand_lists([name, *words])[1:])


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_has_the_same_names_in_every_command(command: str) -> None:
    for parameter in COMMANDS[command].params:
        for name in parameter.opts:
            if name in SHORT_AND_LONG or name in SHORT_AND_LONG.values():
                assert SHORT_AND_LONG.get(parameter.opts[0]) == parameter.opts[1]
            elif parameter.param_type_name == "option":
                assert name.startswith("--"), f"{name} has no long name"


def test_names_that_options_had_before_are_accepted_and_not_shown() -> None:
    context = COMMANDS["plan"].make_context("plan", ["-d", "1", "--overwrite-plans", "-overwrite_plans_name", "Mine"])
    assert (context.params["force"], context.params["plans_name"]) == (True, "Mine")
    context = COMMANDS["import"].make_context("import", ["a.pth", "-d", "1", "-c", "2d", "--to=b.pth"])
    assert context.params["target"] == Path("b.pth")
    shown = " ".join(called(command, "--help").out for command in COMMANDS)
    assert [name for name in OLD_NAMES if f"{name} " in shown] == []


def test_a_former_name_beside_the_present_one_is_refused() -> None:
    ended = called("pretrain", "images", "-d", "1", "-c", "2d", "--to", "weights.pth", "--output", "folder")
    assert ended.code == 2
    assert "--to is the former name of --output, which is given, too: leave one of them out" in ended.message


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"slicemamba \d+\.\d+\.\d+\S*\n", called("--version").out)


def test_a_shell_completes_data_sets_and_configurations(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for typed, completed in (
        ("plan -d Data", "Dataset901_Disks"),
        ("slicing -c 3d_f", "3d_fullres"),
        ("hol", "holdout"),
    ):
        monkeypatch.setenv("_SLICEMAMBA_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", f"slicemamba {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
        assert completed in called().out
