"""Output of `slicemamba evaluate`: on the terminal, as JSON and as LaTeX."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_slicemamba.cli.main import main
from nnunetv2_slicemamba.evaluation.latex import escape_latex
from tests.evaluation.evaluation_folders import write_case, write_dataset_json, write_folders

NAMES = {"background": 0, "A & B_1 [x]": 1, r"50% #{~^\}": 2}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error; lines as they are printed to a file."""
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, truth = write_folders(tmp_path)
    write_dataset_json(tmp_path, NAMES)
    return predictions, truth


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_json_is_strict_and_says_what_its_numbers_mean(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, _ = run(capsys, *folders)
    assert code == 0
    file = folders[0] / "slicemamba_metrics.json"
    content = json.loads(file.read_text(), parse_constant=no_constant)
    assert str(file) in printed
    assert content["versions"].keys() >= {"nnunetv2-slicemamba", "nnunetv2", "monai", "scipy"}
    assert content["settings"]["confidence"] == 0.95
    assert content["protocols"].keys() == {"paper", "per-case"}
    assert "TP/(TP+FP+FN)" in content["paper"]["metrics"]["iou"]
    name = r"50% #{~^\}"
    second = content["per_case"]["cases"][1]["classes"][name]
    assert (second["dice"], second["hd95"], second["nsd"]) == (None, None, None)
    third = content["per_case"]["cases"][2]["classes"][name]
    assert (third["dice"], third["hd95"], third["nsd"], third["counts"]["fn"] > 0) == (0, None, 0, True)
    hd95, dice = (content["per_case"]["classes"][name][metric] for metric in ("hd95", "dice"))
    assert (hd95["cases"], hd95["defined"], hd95["undefined"], hd95["one_empty"]) == (6, 4, 2, 1)
    assert (dice["defined"], dice["undefined"]) == (5, 1)
    assert dice["low"] < dice["mean"] < dice["high"]
    assert not list(folders[0].glob(".slicemamba_metrics*")), "the journal is gone when the result is written"


def test_the_table_shows_how_many_cases_a_mean_leaves_out(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, printed, _ = run(capsys, *folders, "--tolerance", 1.5)
    of_second = printed.partition("Per case")[2].split("├")[1]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in of_second.splitlines() if "│" in line]
    left_out = {row[1]: row[-1] for row in rows if row[1]}  # a long name takes several lines
    assert left_out.items() >= {
        "Dice": "1 of 6", "IoU": "1 of 6", "Acc": "-", "Spe": "-", "Sen": "1 of 6",
        "HD95 (px)": "2 of 6", "NSD (1.5 px)": "1 of 6",
    }.items()  # fmt: skip
    flat = " ".join(printed.split())
    assert "leaves out 1 of 6 cases in which only the truth or only the prediction is empty, which flatters it" in flat
    _, printed, _ = run(capsys, *folders, "--hd95-one-empty", "diagonal")
    assert "counts 1 of 6 cases as the image's diagonal" in " ".join(printed.split())


def test_one_protocol_only(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, latex = tmp_path / "out.json", tmp_path / "out.tex"
    _, printed, _ = run(capsys, *folders, "--protocol", "paper", "-o", output, "--latex", latex)
    assert "mIoU" in printed
    assert "Per case" not in printed
    content = json.loads(output.read_text())
    assert "paper" in content
    assert "per_case" not in content
    assert latex.read_text().count(r"\begin{tabular}") == 1
    _, printed, _ = run(capsys, *folders, "--protocol", "per-case", "-o", output, "--no-surface")
    assert "mIoU" not in printed
    assert "HD95" not in printed
    assert "hd95" not in json.loads(output.read_text())["per_case"]["mean"]


def test_notes_concern_only_what_is_shown(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_paper, of_cases = "the paper pools one foreground class", "bootstrap intervals from 6 cases are rough"
    output = tmp_path / "out.json"
    for protocol, wanted, other in (("paper", of_paper, of_cases), ("per-case", of_cases, of_paper)):
        _, printed, _ = run(capsys, *folders, "--protocol", protocol, "-o", output)
        written = " ".join(json.loads(output.read_text())["notes"])
        assert wanted in printed
        assert wanted in written
        assert other not in printed + written
    _, printed, _ = run(capsys, *folders)
    assert of_paper in printed
    assert of_cases in printed


def test_volumes_have_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((5, 9, 9))
    labels[1:4, 2:5, 3:7] = 1
    for folder in "pt":
        write_case(tmp_path / folder, "a", labels, (1.0, 1.0, 1.0))
    _, printed, _ = run(capsys, tmp_path / "p", tmp_path / "t", "--latex", tmp_path / "x.tex")
    assert "the voxels of the one case pooled" in " ".join(printed.split())
    assert "pixels" not in printed
    assert "All voxels of 1 case pooled" in (tmp_path / "x.tex").read_text()
    write_case(tmp_path / "p", "a", labels[:, 1:], (1.0, 1.0, 1.0))
    _, _, errors = run(capsys, tmp_path / "p", tmp_path / "t")
    assert "the prediction has 5x8x9 voxels, the truth 5x9x9" in " ".join(errors.split())


def test_latex_is_balanced_and_names_are_escaped(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latex = tmp_path / "tables.tex"
    run(capsys, *folders, "--latex", latex)
    text = latex.read_text()
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table", "table", "tabular", "tabular"]
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [2, 2, 2]
    bare = re.sub(r"\\[\\{}%&#$_]", "", text.split("\n", 1)[1])  # without the comment in the first line
    assert bare.count("{") == bare.count("}")
    assert not set("%#$~^_") & set(bare.replace("tab:slicemamba-", ""))
    assert r"A \& B\_1 [x] & " in text
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = len(re.match(r"{(l r*)}".replace(" ", ""), table).group(1))  # type: ignore[union-attr]
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) == 4
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}


def test_every_special_character_of_latex_is_escaped() -> None:
    assert escape_latex("a\\b{c}~d^e_f&g%h$i#j<k>") == (
        r"a\textbackslash{}b\{c\}\textasciitilde{}d\textasciicircum{}e\_f\&g\%h\$i\#j\textless{}k\textgreater{}"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protocol", "mean"], "protocol 'mean' does not exist; give paper or per-case"),
        (["-o", "x.txt"], "must end with .json"),
        (["--latex", "x.json"], "--latex x.json must end with .tex"),
        (["-o", "/nowhere/x.json"], "/nowhere is missing or not writable"),
        (["--labels", "1,two"], "must be whole numbers"),
        (["--confidence", "95"], "--confidence is 95; give a number above 0 and below 1"),
        (["-np", "0"], "-np is 0; give a whole number from 1 to 1024"),
    ],
)
def test_bad_options_end_with_one_message(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, printed, errors = run(capsys, *folders, *arguments)
    assert code == 2
    assert not printed
    assert message in " ".join(errors.split())


def test_two_cases_without_any_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((9, 9))
    labels[2:5, 3:7] = 1
    for folder in "pt":
        for case in "ab":
            write_case(tmp_path / folder, case, labels)
    code, printed, _ = run(capsys, tmp_path / "p", tmp_path / "t")
    assert code == 0
    assert "100.00" in printed
    content = json.loads((tmp_path / "p" / "slicemamba_metrics.json").read_text(), parse_constant=no_constant)
    dice = content["per_case"]["mean"]["dice"]
    assert (dice["mean"], dice["low"], dice["high"]) == (1, None, None)
    assert content["per_case"]["mean"]["hd95"]["mean"] == 0


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("[2cm] liver", "{}[2cm] liver"),
        ("* star", "{}* star"),
        ("liver [left]*", "liver [left]*"),
        ("a\x1b[2Jb\nc", r"a\textbackslash{}x1b[2Jb c"),
    ],
)
def test_a_name_is_no_argument_of_the_line_break_before_it_and_sends_nothing_to_a_terminal(
    name: str, written: str
) -> None:
    assert escape_latex(name) == written


@pytest.mark.parametrize(("option", "name"), [("-o", "splits_final.json"), ("--latex", "thesis.tex")])
def test_a_file_of_the_users_is_not_written_over_and_one_of_ours_is(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, name: str
) -> None:
    file = tmp_path / name
    file.write_text('[{"train": []}]')
    code, _, errors = run(capsys, *folders, option, file)
    assert code == 2
    assert "was not written by this command: it would be lost" in " ".join(errors.split())
    assert file.read_text() == '[{"train": []}]'
    file.write_text("")
    for _ in range(2):
        assert run(capsys, *folders, option, file, "--no-surface")[0] == 0
