"""Machine code of the kernels: their variants, compiled at run time and kept on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch

from nnunetv2_slicemamba.ops.cuda import cache, driver

SCAN_SOURCES = {"forward": "scan_forward.cu", "backward": "scan_backward.cu"}
BSS_SOURCES = {
    "conv": "bss_conv.cu",
    "norm": "bss_norm.cu",
    "copy": "bss_copy.cu",
    "layer_norm": "layer_norm.cu",
    "instance_norm": "instance_norm.cu",
}
SCAN_HEADERS = (
    "conversions.cuh",
    "elements.cuh",
    "lanes.cuh",
    "settings.cuh",
    "common.cuh",
    "reductions.cuh",
    "walk.cuh",
    "walk_back.cuh",
    "finish.cuh",
)
BSS_HEADERS = ("conversions.cuh", "elements.cuh", "lanes.cuh", "activation.cuh", "convolution.cuh", "rows.cuh")
ELEMENTS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # the kernels' ELEMENT
BLOCK_CHANNELS = 64  # channels of a thread block
THREADS = 128  # of a block that scans
PIECE = 8  # channels of a row that one thread moves at once
MAX_STATES = 32
# Shared memory per multiprocessor from which three blocks of 32-token stages fit; compute capabilities 8.6, 8.9 and
# 12.0 have 100 KB.
LARGE_SHARED_BYTES = 160 * 1024


class Variant(Protocol):
    """One compiled form of a source file; hashable."""

    def options(self, architecture: int) -> tuple[str, ...]:
        """The compiler's options for a compute capability, as 90 for 9.0."""

    def shared_bytes(self) -> dict[str, int]:
        """Dynamic shared memory of kernels, in bytes, by what needs it."""


def _options(architecture: int, settings: dict[str, int]) -> tuple[str, ...]:
    defined = (f"-D{name}={value}" for name, value in settings.items())
    return (f"--gpu-architecture=sm_{architecture}", "--std=c++17", *defined)


@dataclass(frozen=True)
class BssVariant:
    """One compiled form of the kernels around the scan.

    wide_rows: rows can be read 16 bytes at a time and E is a multiple of 8. n_dims: spatial axes, 2 or 3; only the
    convolution looks at it. float_in, float_out: whether x and the result are float32 whatever `dtype` is; only
    layer_norm.cu looks at them.
    """

    dtype: torch.dtype
    wide_rows: bool = True
    n_dims: int = 2
    float_in: bool = False
    float_out: bool = False

    def settings(self) -> dict[str, int]:
        """The macros that the source files expect."""
        return {
            "ELEMENT": ELEMENTS[self.dtype],
            "WIDE_ROWS": int(self.wide_rows),
            "DIMENSIONS": self.n_dims,
            "FLOAT_IN": int(self.float_in),
            "FLOAT_OUT": int(self.float_out),
        }

    def options(self, architecture: int) -> tuple[str, ...]:
        """The compiler's options for a compute capability, as 90 for 9.0."""
        return _options(architecture, self.settings())

    def shared_bytes(self) -> dict[str, int]:
        """Empty: these kernels need no dynamic shared memory."""
        return {}


@dataclass(frozen=True)
class ScanVariant:
    """One compiled form of the scan's kernels; settings.cuh explains them."""

    dtype: torch.dtype
    states: int  # padded, see `padded_states`
    stage: int
    wide_rows: bool
    wide_states: bool

    def options(self, architecture: int) -> tuple[str, ...]:
        """The compiler's options for a compute capability, as 90 for 9.0."""
        # What the registers allow without spilling, seen in the compiler's report.
        many_registers = self.states == MAX_STATES or self.dtype == torch.float32
        settings = {
            "ELEMENT": ELEMENTS[self.dtype],
            "STATES": self.states,
            "STAGE": self.stage,
            "WIDE_ROWS": int(self.wide_rows),
            "WIDE_STATES": int(self.wide_states),
            "FORWARD_BLOCKS": 3 if many_registers else 4,
            "BACKWARD_BLOCKS": 2 if self.states == MAX_STATES else 3,
            **{f"SHARED_{part.upper()}": size for part, size in self.shared_bytes().items()},
        }
        return _options(architecture, settings)

    def shared_bytes(self) -> dict[str, int]:
        """Dynamic shared memory of the scanning kernels: two of walk.cuh's ForwardStage, one BackwardStage."""
        rows, pairs = self.stage * 4, self.stage * BLOCK_CHANNELS * 8
        states = self.stage * 2 * self.states * 4
        copies, sub = (1 if self.states == 4 else 2), (4 if self.states <= 16 else 2)
        checkpoints = self.stage // sub * BLOCK_CHANNELS * self.states * 4
        totals = (2 * THREADS * PIECE + BLOCK_CHANNELS) * 4
        return {
            "forward": 2 * (pairs + states + rows),
            "backward": pairs + pairs // 2 + copies * states + checkpoints + totals + rows,
        }


def padded_states(states: int) -> int:
    """The smallest number of states that the kernels are compiled for and that holds `states`, at most MAX_STATES."""
    return max(4, 1 << (states - 1).bit_length())


def stage_tokens(states: int, shared_bytes: int) -> int:
    """Tokens per stage for a padded number of states and the shared memory of a multiprocessor, in bytes."""
    return 32 if states < MAX_STATES and shared_bytes >= LARGE_SHARED_BYTES else 16


@lru_cache(maxsize=1)
def read_sources() -> dict[str, str]:
    """The text of every CUDA file by name."""
    folder = Path(__file__).parent
    names = {*SCAN_SOURCES.values(), *BSS_SOURCES.values(), *SCAN_HEADERS, *BSS_HEADERS}
    return {name: (folder / name).read_text(encoding="utf-8") for name in sorted(names)}


def _files(part: str) -> tuple[str, tuple[str, ...]]:
    """The source file of `part` and the headers that it may include."""
    return (SCAN_SOURCES[part], SCAN_HEADERS) if part in SCAN_SOURCES else (BSS_SOURCES[part], BSS_HEADERS)


def cache_key(part: str, options: tuple[str, ...], version: tuple[int, int]) -> str:
    """Hash of everything that decides the machine code of `part`, a key of SCAN_SOURCES or BSS_SOURCES.

    options: the compiler's. version: the compiler's.
    """
    sources = read_sources()
    digest = hashlib.sha256(repr((part, options, version)).encode())
    source, headers = _files(part)
    for name in (source, *headers):
        digest.update(sources[name].encode())
    return digest.hexdigest()[:32]


def build_cubin(part: str, variant: Variant, architecture: int) -> bytes:
    """Compiles `part` for a compute capability, as 90 for 9.0; neither reads nor writes the disk cache."""
    sources = read_sources()
    name, headers = _files(part)
    return driver.compile_cubin(name, sources[name], {h: sources[h] for h in headers}, variant.options(architecture))


def cached_cubin(part: str, variant: Variant, architecture: int, rebuild: bool = False) -> bytes:
    """Machine code from the disk cache, compiled, which takes seconds, and stored if it is not there or `rebuild`.

    A cache that cannot be read or written only costs the compilation.
    """
    key = cache_key(part, variant.options(architecture), driver.nvrtc_version())
    name = f"{part}-sm{architecture}-{key}.cubin"
    if not rebuild and (kept := cache.read(name)) is not None:
        return kept
    cubin = build_cubin(part, variant, architecture)
    cache.write(name, cubin)
    return cubin
