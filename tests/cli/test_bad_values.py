"""Every option of every command with values that it cannot have: refused by a message, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

from nnunetv2_slicemamba.cli.main import app
from nnunetv2_slicemamba.common.commands import CommandError
from tests.cli.commands import broken_promise, called
from tests.conftest import use_folders

PLANS, SUPERNET, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"
FOLD = ("-d", "901", "-c", "2d", "-f", "0", "-p", PLANS)
# a call of every command that works, or that is refused at the end of its checks, but for what a test changes
CALLS: dict[str, tuple[str, ...]] = {
    "convert": ("kvasir", "empty", "-d", "77"),
    "plan": ("-d", "903"),
    "holdout": (*FOLD, "-tr", SUPERNET, "--fraction", "0.5"),
    "search": (*FOLD, "-tr", SUPERNET, "-device", "cpu"),
    "slicing": (*FOLD, "-tr", SUPERNET, "--set", "2x4"),
    "run": ("-d", "901", "-c", "2d", "-f", "0", "-p", PLANS, "-tr", FINAL, "-device", "cpu"),
    "status": ("-d", "901"),
    "cancel": ("-d", "901"),
    "compare": (*FOLD, "-tr", FINAL, "--arms", "2x4", "-device", "cpu", "--dry-run"),
    "rank": (*FOLD, "-tr", FINAL, "--supernet-trainer", SUPERNET, "-device", "cpu"),
    "import": ("missing.pth", "-o", "written.pth", "-d", "901", "-c", "2d", "-p", PLANS),
    "export": (*FOLD, "-tr", FINAL, "--format", "torchscript"),
    "pretrain": ("empty", "-o", "written.pth", "-d", "901", "-c", "2d", "-p", PLANS, "-device", "cpu"),
    "evaluate": ("predictions", "truth", "--labels", "1", "--no-surface", "-np", "1"),
    "report": (
        "-d",
        "903",
    ),
    "demo": ("--data", "2d", "-device", "cpu"),
}
WITHOUT_VALUES = {"doctor", "register", "trainer-path"}
HUGE = "9" * 30
NO_NUMBERS = ("x", "nan", "inf", "-inf", "-1", HUGE, "1e400", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}x")
NO_WORDS = ("x", "-1", "nan", HUGE, "[/b]\\", "\N{SUPERSCRIPT TWO}", "a\x1b[2Jb", "n" * 5000)

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def is_number(parameter: Any) -> bool:
    """True for an option that takes a number: its value is shown as a range, as N, or as a unit."""
    units = ("N", "ID", "H W", "GB", "MIB", "MM", "MS", "MINUTES", "PIXELS", "RATE")
    return parameter.metavar in units or ".." in (parameter.metavar or "").removesuffix("...")


def values_of(command: str) -> Iterator[tuple[str, Any, str]]:
    """(name, declaration, value) of everything that takes a value, with each of the values that it cannot have."""
    for parameter in COMMANDS[command].params:
        if getattr(parameter, "is_flag", False) or "--help" in parameter.opts:
            continue
        for value in ("", *(NO_NUMBERS if is_number(parameter) else NO_WORDS)):
            yield parameter.opts[0], parameter, value


def changed(call: tuple[str, ...], name: str, parameter: Any, value: str) -> list[str]:
    """`call` with a value of an option, or of the argument in its place, changed or added."""
    words = list(call)
    if parameter.param_type_name == "argument":
        words[0 if parameter.metavar in ("NAME", "IMAGES", "PREDICTIONS") or words[0] == "missing.pth" else 1] = value
        return words
    given = [value] * parameter.nargs
    for flag in parameter.opts:
        if flag in words:
            at = words.index(flag)
            return [*words[: at + 1], *given, *words[at + 2 :]]
    return [*words, name, *given]


@pytest.fixture(scope="module")
def place(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Working folder of all calls, with planned datasets; nothing starts a process."""
    root = tmp_path_factory.mktemp("bad_values") / "study [v2] [/b]\\"
    root.mkdir(parents=True)
    for folder in ("empty", "predictions", "truth"):
        (root / folder).mkdir()
    for folder in ("predictions", "truth"):
        for case in range(2):
            mask = np.zeros((8, 8), np.uint8)
            mask[2:5, 2 : 5 + case] = 1
            Image.fromarray(mask).save(root / folder / f"case_{case}.png")

    def not_started(name: str, arguments: Any, *rest: Any, **options: Any) -> None:
        raise CommandError(f"'{name}' is not started by this test")

    with pytest.MonkeyPatch.context() as monkeypatch:
        use_folders(root, monkeypatch)
        monkeypatch.setenv("nnUNet_preprocessed", str(planned / "nnUNet_preprocessed"))
        monkeypatch.chdir(root)
        for module in ("pipeline.fold_steps", "comparison.compare", "demo.run", "common.commands"):
            monkeypatch.setattr(f"nnunetv2_slicemamba.{module}.run_command", not_started)
        yield root


def test_every_command_that_takes_values_is_called() -> None:
    assert set(CALLS) | WITHOUT_VALUES == set(COMMANDS)
    assert sum(len(list(values_of(command))) for command in CALLS) > 600


def test_an_export_does_not_write_over_a_checkpoint(place: Path) -> None:
    ended = called("export", *CALLS["export"], "-o", "checkpoint_final.pth")
    assert ended.code == 2
    assert "-o checkpoint_final.pth must end with .ts" in ended.message


@pytest.mark.parametrize("command", CALLS)
def test_values_that_an_option_cannot_have_are_refused(place: Path, command: str) -> None:
    assert list(wrong_ends(command)) == []


def wrong_ends(command: str) -> Iterator[str]:
    """Sentences about the calls of a command that neither work nor are refused as they should."""
    for name, parameter, value in values_of(command):
        ended = called(command, *changed(CALLS[command], name, parameter, value))
        is_option = parameter.param_type_name == "option"
        problem = broken_promise(ended)
        if problem is None and (is_number(parameter) or value == ""):
            if ended.code != 2:
                problem = "is taken"
            elif value[:30] not in ended.message or (is_option and name not in ended.message):
                problem = f"is not named: {ended.message}"
        if problem:
            yield f"{command} {name} {value[:40]!r} {problem}"


@pytest.mark.parametrize("command", CALLS)
def test_what_is_left_out_is_asked_for(place: Path, command: str) -> None:
    for parameter in COMMANDS[command].params:
        if parameter.required:
            words = changed(CALLS[command], parameter.opts[0], parameter, "LEFT OUT")
            at = words.index("LEFT OUT")
            del words[at - (parameter.param_type_name == "option") : at + 1]
            ended = called(command, *words)
            assert ended.code == 2
            assert "Missing" in ended.message


def test_paths_are_printed_as_they_are(place: Path) -> None:
    done = called("slicing", *CALLS["slicing"])
    assert done.code == 0
    (file,) = place.rglob("fold_0.json")
    assert f"written to {file}\n" in done.out
    (place / "out [v2]").mkdir()
    done = called("evaluate", *CALLS["evaluate"], "-o", "out [v2]/m.json", "--latex", "out [v2]/[bold].tex")
    assert done.out.endswith("JSON:  out [v2]/m.json\nLaTeX: out [v2]/[bold].tex\n")
    missing = called("search", *CALLS["search"])
    folder = file.parents[2] / f"{SUPERNET}__{PLANS}__2d" / "fold_0"
    assert f"there is no trained supernet {folder}/checkpoint_final.pth" in missing.err
