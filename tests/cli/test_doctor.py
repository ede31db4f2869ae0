"""`slicemamba doctor` tells a sound installation from a broken one, and how to mend it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from nnunetv2_slicemamba.cli import doctor
from nnunetv2_slicemamba.common.registration import EXT_TRAINER_FOLDER, MARKER, OUR_FOLDER_ALONE, SHIMS, register
from nnunetv2_slicemamba.nets import BSS
from nnunetv2_slicemamba.nets.self_check import TOLERANCE, block_errors, scan_errors
from nnunetv2_slicemamba.ops.backends import BACKENDS, Backend, available_backends, chosen_backend

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture(autouse=True)
def sound_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything as a user should have it; tests break one thing at a time."""
    for variable in FOLDERS:
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_extTrainer", str(EXT_TRAINER_FOLDER))
    monkeypatch.delenv("SLICEMAMBA_BACKEND", raising=False)


def run() -> Result:
    app = typer.Typer()
    doctor.add_commands(app)
    return CliRunner().invoke(app, [])


def findings(section: str) -> dict[str, doctor.Finding]:
    """The findings of one section by name."""
    return {finding.name: finding for finding in doctor.examined(doctor.SECTIONS[section])}


def with_scan(monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> None:
    """Lets the backend `name` compute `change` of its own result."""
    right = BACKENDS[name]
    wrong = dataclasses.replace(right, scan=lambda *args: change(right.scan(*args), *args))
    monkeypatch.setitem(BACKENDS, name, wrong)


def test_a_sound_installation_is_reported_in_full_with_exit_code_0(tmp_path: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output
    assert result.output.endswith("\nEverything that SliceMamba needs works.\n")
    for name in ("nnunetv2-slicemamba", "nnunetv2", "torch", "numba", "triton", "optuna", "mamba_ssm", "cpu", *FOLDERS):
        assert name in result.output
    assert f"{chosen_backend(torch.device('cpu'))} runs" in result.output
    assert torch.__version__.split("+")[0] in result.output
    for name in BACKENDS:
        assert name in result.output


def test_what_is_not_set_up_yet_is_counted_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.delenv("nnUNet_results")
    result = run()
    assert result.exit_code == 0, result.output
    assert result.output.endswith("works. 2 warnings above: some commands need this, too.\n")


def test_backends_that_do_not_run_are_given_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "mamba_ssm", Backend("mamba_ssm", BACKENDS["torch"].scan, lambda *_: "it is raining"))
    details = [finding.detail for finding in doctor.examined(doctor.backends)]
    assert "mamba_ssm: it is raining" in details
    assert "reference: only for tests" in details


@pytest.mark.parametrize("backend", available_backends("cpu"))
def test_the_self_check_passes_for_every_backend_that_can_run_here(backend: str) -> None:
    errors = scan_errors(backend, torch.device("cpu"))
    assert set(errors) == {"output", "x", "dt", "B", "C", "A", "D", "delta_bias", "dt_weight"}
    assert max(errors.values()) < 1e-5


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("output", lambda y, *_: y * (1 + 2 * TOLERANCE)),
        ("gradient", lambda y, x, *_: y + 0.1 * (x - x.detach())),
        ("NaN", lambda y, *_: y * float("nan")),
        ("crash", lambda *_: 1 / 0),
    ],
)
def test_a_wrong_scan_fails_the_self_check_and_the_command(
    what: str, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scan(monkeypatch, chosen_backend(torch.device("cpu")), change)
    assert findings("Scan")["self-check"].status == "FAIL"
    result = run()
    assert result.exit_code == 1
    assert "SLICEMAMBA_BACKEND=torch" in result.output


def test_a_whole_block_is_checked_where_fused_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # the kernels need a GPU; what they are compared with runs here
    assert max(block_errors(torch.device("cpu")).values()) < 1e-5
    assert "bss.conv.weight" in block_errors(torch.device("cpu"))
    assert doctor.block_check(torch.device("cpu")).status == "ok"
    assert "block" not in findings("Scan")

    def wrong(block: BSS, x: torch.Tensor) -> torch.Tensor:
        return 1.01 * original(block, x) if x.dtype == torch.float32 else original(block, x)

    original = BSS.forward
    monkeypatch.setattr(BSS, "forward", wrong)
    found = doctor.block_check(torch.device("cpu"))
    assert found.status == "FAIL"
    assert "SLICEMAMBA_FUSED=0" in found.remedy


def test_a_backend_that_does_not_exist_is_a_failure_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLICEMAMBA_BACKEND", "abacus")
    result = run()
    assert result.exit_code == 1
    assert "abacus" in result.output
    assert "unset SLICEMAMBA_BACKEND" in result.output


def test_a_named_backend_is_the_one_that_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLICEMAMBA_BACKEND", "reference")
    found = findings("Scan")
    assert found["cpu"].detail == "reference runs: SLICEMAMBA_BACKEND names it"
    assert found["self-check"].detail.startswith("reference against the reference")


@pytest.mark.skipif(
    BACKENDS["mamba_ssm"].unavailable_reason(torch.device("cuda"), torch.float32) is None, reason="it is there"
)
def test_where_mamba_ssms_scan_is_missing_the_report_says_how_to_build_it() -> None:
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install" in run().output


@pytest.mark.parametrize(("version", "status"), [("2.7.1", "FAIL"), ("2.8.1", "ok"), ("2.11.0", "ok"), ("3.0", "FAIL")])
def test_an_nnunet_outside_the_supported_range_is_a_failure_with_the_remedy(
    version: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "nnunetv2" else real(name))
    finding = findings("Versions")["nnunetv2"]
    assert finding.status == status
    assert version in finding.detail
    if status == "FAIL":
        assert finding.remedy == 'pip install "nnunetv2<3,>=2.8"'


def test_a_dependency_that_is_not_installed_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "optuna" else "999")
    finding = findings("Versions")["optuna"]
    assert (finding.status, finding.detail) == ("FAIL", "not installed")


def test_missing_folders_are_warnings_with_remedies_that_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_raw")
    absent = tmp_path / ("a_long_name_" * 12)
    monkeypatch.setenv("nnUNet_results", str(absent))
    result = run()
    assert result.exit_code == 0, result.output
    assert "nnUNet_raw: export nnUNet_raw=/path/to/nnUNet_raw" in result.output
    # one line, however long, although the terminal has 80 columns
    assert f"mkdir -p {absent}" in result.output
    assert findings("nnU-Net folders")["nnUNet_raw"].status == "warn"
    assert findings("nnU-Net folders")["nnUNet_results"].status == "warn"


def test_a_folder_that_cannot_be_written_to_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunetv2_slicemamba.common.folders.is_writable", lambda folder: False)
    found = findings("nnU-Net folders")
    assert found["nnUNet_results"].status == found["nnUNet_preprocessed"].status == "warn"
    assert "not writable" in found["nnUNet_results"].detail
    # raw data may well be read-only
    assert found["nnUNet_raw"].status == "info"


def test_where_nnunet_does_not_find_the_trainers_the_exact_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_extTrainer")
    result = run()
    assert result.exit_code == 0, result.output
    assert 'trainers: export nnUNet_extTrainer="$(slicemamba trainer-path)"' in result.output
    assert findings("nnU-Net look-up")["trainers"].status == "warn"


def test_where_nnunet_finds_the_trainers_the_way_is_named() -> None:
    finding = findings("nnU-Net look-up")["trainers"]
    assert finding.status == "ok"
    assert str(EXT_TRAINER_FOLDER) in finding.detail


def test_the_trainers_folder_of_another_installation_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "ext_trainer"
    shutil.copytree(EXT_TRAINER_FOLDER, other)
    assert "nnUNet_extTrainer" not in findings("nnU-Net look-up")
    monkeypatch.setenv("nnUNet_extTrainer", str(other))
    finding = findings("nnU-Net look-up")["nnUNet_extTrainer"]
    assert (finding.status, finding.detail) == ("warn", f"{other} belongs to another installation")
    assert finding.remedy == OUR_FOLDER_ALONE


def test_a_file_that_another_version_registered_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shim in SHIMS:
        (tmp_path / shim.file).parent.mkdir(parents=True)
    trainers = register(tmp_path)[0]
    monkeypatch.setattr(doctor, "nnunet_folder", lambda: tmp_path)
    assert "registered file" not in findings("nnU-Net look-up")
    trainers.write_text(f"{MARKER}\nfrom nnunetv2_slicemamba.trainers import *\n")
    finding = findings("nnU-Net look-up")["registered file"]
    assert (finding.status, finding.remedy) == ("warn", "slicemamba register")
    assert finding.detail.startswith(f"{trainers} was written by")


def test_a_look_up_that_cannot_be_finished_is_a_failure_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_trainer.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    finding = findings("nnU-Net look-up")["trainers"]
    assert finding.status == "FAIL"
    assert "a_module_that_is_not_there" in finding.detail


def test_a_second_copy_of_the_trainers_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copied.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class SliceMambaTrainer(nnUNetTrainer):\n    pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    finding = findings("nnU-Net look-up")["trainers"]
    assert finding.status == "FAIL"
    assert "second copy" in finding.detail


def test_a_section_that_cannot_be_examined_is_reported_and_the_others_still_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Any:
        raise ImportError("torch is not what it was")
        yield

    monkeypatch.setitem(doctor.SECTIONS, "Devices", broken)
    result = run()
    assert result.exit_code == 1
    assert "torch is not what it was" in result.output
    assert "self-check" in result.output
