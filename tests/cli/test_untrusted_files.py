"""No command runs what a checkpoint or a case's pickle says; each refuses the file by its name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.cli import main
from nnunetv2_slicemamba.planning.fold_folder import FoldFolder, SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection, select
from nnunetv2_slicemamba.trainers.offline import make_trainer, quiet
from tests.common.malicious import malicious_files
from tests.comparison.test_rank import compared
from tests.conftest import use_folders

PLANS, SUPERNET, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"
FOLD = ["-d", "901", "-c", "2d", "-f", "0", "-p", PLANS]
# of the malicious files, one of each kind of reading
KINDS = ["zip, in init_args", "zip, codecs", "zip, torch.load", "legacy, whole", "pickle, protocol 0", "TorchScript"]

pytestmark = pytest.mark.filterwarnings("ignore")
with_some_or_all = pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)])


def chosen(files: dict[str, Path], all_of_them: bool) -> list[str]:
    """Names of the malicious files that a command is given; the first of KINDS is the last."""
    names = list(files) if all_of_them else KINDS
    return [*(name for name in names if name != KINDS[0]), KINDS[0]]


@pytest.fixture
def selection(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Selection:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("SLICEMAMBA_DEBUG", raising=False)
    return select("901", "2d", "0", PLANS)


@pytest.fixture
def trained(selection: Selection) -> Callable[[FoldFolder], Path]:
    """trained(folder): writes the checkpoint and the validation of a finished training; gives the checkpoint."""

    def make(folder: FoldFolder) -> Path:
        with quiet():
            trainer = make_trainer(folder, torch.device("cpu"))
            trainer.initialize()
        folder.summary.parent.mkdir(parents=True, exist_ok=True)
        folder.summary.write_text('{"metric_per_case": [], "foreground_mean": {"Dice": 0.5}}')
        trainer.save_checkpoint(str(folder.checkpoint))
        return folder.checkpoint

    return make


@pytest.fixture
def malicious(tmp_path: Path) -> tuple[dict[str, Path], Path]:
    """The malicious files by what they are, and the marker that they make."""
    folder, marker = tmp_path / "malicious", tmp_path / "marker"
    folder.mkdir()
    return dict(malicious_files(folder, marker)), marker


def refuses(words: list[str], file: Path, capsys: pytest.CaptureFixture[str], why: str = "") -> None:
    """The command ends with 2, and an error that names the file."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    message = capsys.readouterr().err
    assert ended.value.code == 2, message
    assert re.search(rf"error: .*{re.escape(str(file))}.*{why}", message.replace("\n", " ")), message


@pytest.mark.parametrize("command", ["import", "slicing"])
def test_a_file_that_is_given_is_read_as_data(
    command: str,
    selection: Selection,
    malicious: tuple[dict[str, Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, marker = malicious
    for name, file in files.items():
        words = {
            "import": ["import", str(file), "--to", str(tmp_path / "x.pth"), *FOLD[:4], "-p", PLANS],
            "slicing": ["slicing", *FOLD, "--set", str(file)],
        }
        refuses(words[command], file, capsys)
        assert not marker.exists(), name


@with_some_or_all
def test_a_supernets_checkpoint_is_read_as_data(
    all_of_them: bool,
    selection: Selection,
    trained: Callable[[FoldFolder], Path],
    malicious: tuple[dict[str, Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, marker = malicious
    main_ok(["holdout", *FOLD, "-tr", SUPERNET, "--fraction", "0.5"])
    checkpoint = trained(SupernetFolder(selection, SUPERNET))
    compared(selection, tmp_path / "c", {"2x2": 0.5, "4x4": 0.6, "random_0": 0.7})
    for name in chosen(files, all_of_them):
        shutil.copy(files[name], checkpoint)
        for words in (
            ["search", *FOLD, "-tr", SUPERNET, "-device", "cpu"],
            ["search", *FOLD, "-tr", SUPERNET, "-device", "cpu", "--dry-run"],
            ["holdout", *FOLD, "-tr", SUPERNET, "--fraction", "0.2"],
            ["holdout", *FOLD, "-tr", SUPERNET, "--remove"],
            ["rank", *FOLD, "-tr", "SliceMambaTrainer_20epochs", "--supernet-trainer", SUPERNET, "--output",
             str(tmp_path / "c"), "-device", "cpu"],
        ):  # fmt: skip
            refuses(words, checkpoint, capsys)
            assert not marker.exists(), (name, words)


@with_some_or_all
def test_a_final_networks_checkpoint_is_read_as_data(
    all_of_them: bool,
    selection: Selection,
    trained: Callable[[FoldFolder], Path],
    malicious: tuple[dict[str, Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, marker = malicious
    trained(SupernetFolder(selection, SUPERNET))
    main_ok(["slicing", *FOLD, "--set", "2x2", "-tr", SUPERNET])
    checkpoint = trained(FoldFolder(selection, FINAL))
    folder = compared(selection, tmp_path / "c", {"2x2": 0.5})
    arm = folder.fold_folder("2x2", 0) / "checkpoint_final.pth"
    run = ["run", *FOLD, "-tr", FINAL, "-device", "cpu"]
    compare = ["compare", *FOLD, "-tr", folder.trainer, "--arms", "2x2", "--output", str(tmp_path / "c")]
    for name in chosen(files, all_of_them):
        shutil.copy(files[name], checkpoint)
        shutil.copy(files[name], arm)
        refuses(["export", *FOLD, "-tr", FINAL, "--format", "torchscript"], checkpoint, capsys)
        refuses(run, checkpoint, capsys)
        refuses([*compare, "--supernet-trainer", SUPERNET, "-device", "cpu"], arm, capsys)
        assert not marker.exists(), name
    main_ok(["report", "-d", "901", "-o", str(tmp_path / "report.html")])
    assert "checkpoint_final.pth is not read" in (tmp_path / "report.html").read_text()
    assert not marker.exists()


def test_nan_in_a_networks_weights_is_refused_before_it_is_used(
    selection: Selection, trained: Callable[[FoldFolder], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "1 of its .* tensors hold NaN or infinity, the first is encoder"
    supernet = trained(SupernetFolder(selection, SUPERNET))
    final = trained(FoldFolder(selection, FINAL))
    for checkpoint in (supernet, final):
        content = torch.load(checkpoint, weights_only=False)
        first_float(content["network_weights"]).view(-1)[0] = torch.nan
        torch.save(content, checkpoint)
    refuses(["search", *FOLD, "-tr", SUPERNET, "-device", "cpu"], supernet, capsys, why)
    assert not (supernet.parent / "slicing_search" / "best_slicing.json").exists()
    assert not (supernet.parent / "slicing_search" / "study.evaluations").exists(), "the search began"
    refuses(["export", *FOLD, "-tr", FINAL, "--format", "torchscript"], final, capsys, why)
    words = ["import", str(final), "--to", str(tmp_path / "x.pth"), *FOLD[:4], "-p", PLANS]
    refuses(words, final, capsys, why)


def test_a_preprocessed_case_is_read_as_data(
    selection: Selection,
    trained: Callable[[FoldFolder], Path],
    malicious: tuple[dict[str, Path], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, marker = malicious
    trained(SupernetFolder(selection, SUPERNET))
    trained(FoldFolder(selection, FINAL))
    cases = sorted(selection.preprocessed_folder.rglob("case_*.pkl"))
    assert cases
    for name in ("pickle, protocol 0", "pickle, nested", "pickle, in a set of arrays"):
        for case in cases:
            shutil.copy(files[name], case)
        for words in (
            ["search", *FOLD, "-tr", SUPERNET, "-device", "cpu"],
            ["export", *FOLD, "-tr", FINAL, "--format", "torchscript"],
        ):
            refuses(words, cases[0].parent, capsys, r"case_\d.pkl is not read: .*it names .*system")
            assert not marker.exists(), (name, words)


def test_images_masks_and_slices_are_read_as_data(
    malicious: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every malicious file in the place of every kind of image that `convert` and `evaluate` read."""
    files, marker = malicious
    use_folders(tmp_path, monkeypatch)
    places = [
        *(("folders", end) for end in (".png", ".tif", ".nii.gz", ".mha")),
        ("synapse", ".npz"),
        ("synapse", ".h5"),
    ]
    for number, (key, ending) in enumerate(places):
        source = tmp_path / f"source{number}"
        for at, file in enumerate(files.values()):
            for folder, name in {
                ("folders", ending): (("images", f"c{at}"), ("masks", f"c{at}")),
                ("synapse", ".npz"): (("train_npz", f"case{at:04d}_slice000"),),
                ("synapse", ".h5"): (("test_vol_h5", f"case{at:04d}.npy"),),
            }[key, ending]:
                (source / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, source / folder / f"{name}{ending}")
        own = ["--images", str(source / "images"), "--masks", str(source / "masks"), "--name", "Own"]
        words = ["convert", key, *(own if key == "folders" else [str(source)]), "-d", str(70 + number)]
        refuses(words, source if key == "synapse" else Path("images"), capsys)
        assert not marker.exists(), words
        if key == "folders":
            refuses(["evaluate", own[1], own[3], "-np", "1"], Path(f"c0{ending}"), capsys)
            assert not marker.exists(), ending


def first_float(weights: dict[str, Any]) -> torch.Tensor:
    return next(value for value in weights.values() if value.is_floating_point())


def main_ok(words: list[str]) -> None:
    """The command ends well."""
    try:
        main(words)
    except SystemExit as ended:
        assert not ended.code, words  # noqa: PT017
