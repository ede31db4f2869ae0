"""The block's CUDA kernels on the CPU: compiled as C++ and called as `bss_kernels.launch` would."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from nnunetv2_slicemamba.ops.cuda import bss_kernels, cubins, instance_norm, layer_norm
from nnunetv2_slicemamba.ops.cuda.cubins import BssVariant

FOLDER = Path(__file__).parent
ARGUMENTS = {
    "conv": "ConvArgs",
    "norm": "NormArgs",
    "copy": "CopyArgs",
    "layer_norm": "LayerNormArgs",
    "instance_norm": "InstanceNormArgs",
}
SIZES = {
    "conv": bss_kernels._CONV.size,
    "norm": bss_kernels._NORM.size,
    "copy": 10 * 64 + 8,
    "layer_norm": layer_norm._ARGUMENTS.size,
    "instance_norm": instance_norm._ARGUMENTS.size,
}
PROCESSORS = 3  # few, so that small inputs already give a block several turns


def compiler() -> str | None:
    return next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)


@lru_cache(maxsize=1)
def _sources() -> tempfile.TemporaryDirectory:
    """The kernels' files beside the shim's; the folder lives as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="slicemamba-emulation-")
    for name in (*cubins.BSS_SOURCES.values(), *cubins.BSS_HEADERS):
        (Path(folder.name) / name).write_text(cubins.read_sources()[name])
    for name in ("shim.h", "conversions.cuh"):
        shutil.copy(FOLDER / name, folder.name)
    return folder


@lru_cache(maxsize=64)
def library(part: str, variant: BssVariant) -> ctypes.CDLL:
    """Compiled `part` for `variant`: run_NAME(arguments, blocks, threads) per kernel, and arguments_size()."""
    folder = Path(_sources().name)
    arguments = ARGUMENTS[part]
    lines = ['#include "shim.h"', f'#include "{cubins.BSS_SOURCES[part]}"', 'extern "C" {']
    lines.append(f"int arguments_size() {{ return sizeof({arguments}); }}")
    for name in bss_kernels.KERNELS[part]:
        call = f"[](const void* at) {{ {name}(*static_cast<const {arguments}*>(at)); }}"
        lines.append(
            f"void run_{name}(const void* from, unsigned blocks, unsigned threads) {{ {arguments} p; "
            f"memcpy(&p, from, sizeof p); emulation::run(blocks, threads, {call}, &p); }}"
        )
    stem = "-".join([part, *(f"{value}" for value in variant.settings().values())])
    source, built = folder / f"{stem}.cpp", folder / f"{stem}.so"
    source.write_text("\n".join([*lines, "}"]))
    defined = [f"-D{name}={value}" for name, value in variant.settings().items()]
    # alignment: a vector access that a GPU would refuse ends the process here, too
    checks = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error", "-fno-strict-aliasing", "-w"]
    command = [compiler() or "g++", "-std=c++17", "-O1", "-shared", "-fPIC", *checks, *defined]
    subprocess.run([*command, str(source), "-o", str(built)], check=True, cwd=folder)
    return ctypes.CDLL(str(built))


def launch(device: torch.device, part: str, variant: BssVariant, name: str, blocks: int, arguments: bytes) -> None:
    """Runs a kernel in the place of `bss_kernels.launch`."""
    assert device.type == "cpu"
    assert blocks > 0
    assert len(arguments) == SIZES[part]
    loaded = library(part, variant)
    assert loaded.arguments_size() == len(arguments)
    getattr(loaded, f"run_{name}")(arguments, blocks, bss_kernels.KERNELS[part][name][0])
