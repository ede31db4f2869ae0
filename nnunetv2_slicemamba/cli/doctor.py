"""`slicemamba doctor`: a report on the installation, the scans that run here, and what nnU-Net finds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from nnunetv2_slicemamba.cli.help import SET_UP, listed
from nnunetv2_slicemamba.common.console import PlainConsole, styled
from nnunetv2_slicemamba.common.counts import count
from nnunetv2_slicemamba.common.registration import (
    EXT_TRAINER_VARIABLE,
    OUR_FOLDER_ALONE,
    export_line,
    nnunet_folder,
    other_installations,
    registered_shims,
)
from nnunetv2_slicemamba.common.shell import shell_line

if TYPE_CHECKING:
    import torch

DISTRIBUTION = "nnunetv2-slicemamba"
# what is shown even where nothing is wrong with it; every other dependency only where something is
SHOWN = ("nnunetv2", "torch", "numba", "optuna")
OPTIONAL = {"triton": "torch.compile on GPUs uses it", "mamba_ssm": "its CUDA scan is one of the backends"}
MAMBA_BUILD = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation --no-binary mamba-ssm mamba-ssm"
STYLES = {"ok": "green", "info": "dim", "warn": "yellow", "FAIL": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. status: ok, info, warn (a remedy is given) or FAIL (something needed does not work)."""

    status: str
    name: str
    detail: str
    remedy: str | None = None


EXAMPLES = ("slicemamba doctor", "slicemamba doctor > doctor.txt")


def add_commands(app: typer.Typer) -> None:
    app.command("doctor", **listed(SET_UP, EXAMPLES))(doctor)


def doctor() -> None:
    """Report what is installed, what runs here, and what nnU-Net finds.

    The exit code is 0 if everything needed works, else 1.
    """
    console = PlainConsole()
    failed = warned = 0
    for title, examine in SECTIONS.items():
        console.print(styled(title, "bold"))  # at once: a section may take some seconds
        findings = examined(examine)
        show(console, findings)
        failed += sum(finding.status == "FAIL" for finding in findings)
        warned += sum(finding.status == "warn" for finding in findings)
    if failed:
        console.print(styled(f"{failed} problem{'s' if failed > 1 else ''}, marked FAIL above.", "bold red"))
        raise typer.Exit(1)
    if warned:
        above = f"{count(warned, 'warning')} above: some commands need this, too."
        console.print(styled(f"What SliceMamba needs is installed and works. {above}", "yellow"))
        return
    console.print(styled("Everything that SliceMamba needs works.", "green"))


def examined(examine: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of one section; what keeps it from being examined becomes a finding of its own."""
    findings = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other packages' deprecations, given at import
            for finding in examine():
                findings.append(finding)
    except Exception as error:  # a report that crashes on a broken installation is of no use
        findings.append(Finding("FAIL", "not examined", f"{type(error).__name__}: {error}"))
    return findings


def show(console: Console, findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", min_width=6)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(styled(finding.status, STYLES[finding.status]), styled(finding.name), styled(finding.detail))
    console.print(table)
    for finding in findings:
        if finding.remedy is not None:
            # below the table and never wrapped: remedies are copied into a shell
            console.print(f"        {finding.name}: {finding.remedy}")
    console.print()


def versions() -> Iterator[Finding]:
    """The package, its dependencies against the ranges that it declares, and what is optional."""
    from packaging.requirements import Requirement

    yield Finding("ok", "python", platform.python_version())
    yield Finding("ok", DISTRIBUTION, importlib.metadata.version(DISTRIBUTION))
    for text in importlib.metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, supported = requirement.name, requirement.specifier
        version = installed(name)
        if version is None:
            yield Finding("FAIL", name, "not installed", f'pip install "{name}{supported}"')
        elif not supported.contains(version, prereleases=True):
            yield Finding("FAIL", name, f"{version}, supported: {supported}", f'pip install "{name}{supported}"')
        elif name in SHOWN:
            yield Finding("ok", name, f"{version} (supported: {supported})")
    for name, use in OPTIONAL.items():
        version = installed(name)
        yield Finding("info", name, f"{version or 'not installed'} (optional: {use})")


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Finding]:
    """Findings on the devices that torch can compute on."""
    import torch

    yield Finding("ok", "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    if not torch.cuda.is_available():
        yield Finding("info", "cuda", f"no device; {built}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(
            "ok",
            f"cuda:{index}",
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GB, "
            f"compute capability {properties.major}.{properties.minor}; {built}",
        )
    if torch.backends.mps.is_available():
        yield Finding("ok", "mps", "Apple GPU")


def present_devices() -> list[torch.device]:
    """One device of every kind that is here."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [torch.device(name) for name, present in there.items() if present]


def backends() -> Iterator[Finding]:
    """For every device, which scan runs, its errors against the reference, and why the others do not run."""
    from nnunetv2_slicemamba.ops.backends import (
        ENVIRONMENT_VARIABLE,
        PREFERENCE,
        block_backend,
        chosen_backend,
        explain_backends,
    )

    forced = os.environ.get(ENVIRONMENT_VARIABLE)
    reasons: dict[str, str | None] = {}
    for device in present_devices():
        try:
            chosen = chosen_backend(device)
        except (ValueError, RuntimeError) as error:
            yield Finding("FAIL", str(device), str(error), f"unset {ENVIRONMENT_VARIABLE}")
            continue
        reasons = explain_backends(device)
        named = forced is not None and forced not in ("", "auto")
        why = f"{ENVIRONMENT_VARIABLE} names it" if named else f"the first of {', '.join(PREFERENCE)} that can run here"
        yield Finding("ok", str(device), f"{chosen} runs: {why}")
        for name, reason in reasons.items():
            if name != chosen:
                passed_over = "only for tests" if name not in PREFERENCE else f"could run, {chosen} is preferred"
                yield Finding("info", "", f"{name}: {reason or passed_over}")
        yield check_of(chosen, device)
        if block_backend(device) is not None:
            yield block_check(device)
    if reasons.get("mamba_ssm"):
        yield Finding(
            "info",
            "mamba_ssm",
            "optional; its CUDA scan needs an NVIDIA GPU and is built with nvcc at install, only if asked for:",
            MAMBA_BUILD,
        )


def check_of(backend: str, device: torch.device) -> Finding:
    """The self-check of a backend as a finding."""
    from nnunetv2_slicemamba.nets.self_check import TOLERANCE, scan_errors

    avoid = "SLICEMAMBA_BACKEND=torch avoids this backend; please report this output"
    what = f"{backend} against the reference in float64"
    return compared("self-check", backend, what, lambda: scan_errors(backend, device), TOLERANCE, avoid)


def block_check(device: torch.device) -> Finding:
    """The self-check of whole blocks by the kernels that networks use on a GPU, as a finding."""
    from nnunetv2_slicemamba.nets.self_check import BLOCK_TOLERANCE, block_errors

    avoid = "SLICEMAMBA_FUSED=0 avoids these kernels; please report this output"
    what = "a fused block against PyTorch's operators in float64"
    return compared("block", "a fused block", what, lambda: block_errors(device), BLOCK_TOLERANCE, avoid)


def compared(
    title: str, runs: str, what: str, errors_of: Callable[[], dict[str, float]], tolerance: float, avoid: str
) -> Finding:
    """Errors by name, "output" among them, as a finding; whatever a kernel or a driver raises is one, too."""
    try:
        errors = errors_of()
    except Exception as error:
        return Finding("FAIL", title, f"{runs} stops with {type(error).__name__}: {error}", avoid)
    worst = max((name for name in errors if name != "output"), key=lambda name: errors[name])
    right = all(error <= tolerance for error in errors.values())  # NaN is not right either
    largest = f"error of the output {errors['output']:.1e}, of the gradients at most {errors[worst]:.1e} ({worst}'s)"
    detail = f"{what}, 2D and 3D: {largest}"
    if right:
        return Finding("ok", title, detail)
    return Finding("FAIL", title, f"{detail}; more than {tolerance:.0e}", avoid)


def folders() -> Iterator[Finding]:
    """nnU-Net's three folders; what is missing is a warning, since not every command needs every folder."""
    from nnunetv2_slicemamba.common.folders import FOLDERS, is_writable

    for variable in FOLDERS:
        value = os.environ.get(variable)
        if not value:
            yield Finding("warn", variable, "not set", f"export {variable}=/path/to/{variable}")
        elif not os.path.isdir(value):
            remedy = f"{shell_line('mkdir', '-p', value)}, or correct the variable"
            yield Finding("warn", variable, f"{value} is not a folder", remedy)
        elif not is_writable(Path(value)):
            status = "info" if variable == "nnUNet_raw" else "warn"  # raw data may well be read-only
            yield Finding(
                status, variable, f"{value} (not writable)", f"make it writable, or let {variable} name another"
            )
        else:
            yield Finding("ok", variable, value)


def trainers() -> Iterator[Finding]:
    """Whether nnU-Net's own look-up finds our trainers, and how; planners have no look-up but register's."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_slicemamba.trainers import TRAINERS

    yield from (Finding("warn", *fault) for fault in other_installations(nnunet_folder()))
    shims = {file.stem for file in registered_shims(nnunet_folder())}
    variable = os.environ.get(EXT_TRAINER_VARIABLE, "")
    # nnU-Net looks in its own folder first
    way = "registered in nnunetv2" if "slicemamba_trainers" in shims else f"nnUNet_extTrainer={variable}"
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
            found = recursive_find_trainer_class_by_name("SliceMambaTrainer")
    except Exception as error:  # nnU-Net's own if it finds none, or that of a module it imports on its way
        if isinstance(error, RuntimeError) and "Could not find" in str(error):
            where = f"nnUNet_extTrainer is {variable or 'not set'}, nothing is registered"
            remedy = f"{export_line()}\n        or once and for all: slicemamba register"
            yield Finding("warn", "trainers", f"nnU-Net's commands do not find them: {where}", remedy)
        else:
            what = f"nnU-Net's look-up in nnUNet_extTrainer={variable} stops with {type(error).__name__}: {error}"
            yield Finding("FAIL", "trainers", what, OUR_FOLDER_ALONE)
    else:
        if found is TRAINERS["SliceMambaTrainer"]:
            yield Finding("ok", "trainers", f"nnU-Net finds them: {way}")
        else:
            copy = f"nnU-Net finds a second copy of them, which cannot be pickled: {way}"
            yield Finding("FAIL", "trainers", copy, OUR_FOLDER_ALONE)
    if "slicemamba_planners" in shims:
        yield Finding("ok", "planners", "'slicemamba plan', or nnU-Net's commands with -pl: registered in nnunetv2")
    else:
        yield Finding("info", "planners", "'slicemamba plan'; nnU-Net's own -pl needs 'slicemamba register'")


SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Versions": versions,
    "Devices": devices,
    "Scan": backends,
    "nnU-Net folders": folders,
    "nnU-Net look-up": trainers,
}
