"""The CUDA backend without a GPU: its source compiles for every supported GPU, its cache and its refusals work."""

from __future__ import annotations

import os
import stat
from typing import ClassVar

import pytest
import torch

from nnunetv2_slicemamba.ops import cuda_scan
from nnunetv2_slicemamba.ops.cuda import cache, cubins, driver, loading, scan_plan
from nnunetv2_slicemamba.ops.cuda.cubins import ScanVariant
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason

HALF = ScanVariant(torch.float16, 16, 32, wide_rows=True, wide_states=True)
# every type, number of states, stage and alignment at least once
VARIANTS = (
    HALF,
    ScanVariant(torch.bfloat16, 8, 32, wide_rows=True, wide_states=False),
    ScanVariant(torch.float32, 4, 16, wide_rows=False, wide_states=True),
    ScanVariant(torch.float16, 32, 16, wide_rows=False, wide_states=False),
)
SMALLEST_SHARED_BYTES = 99 * 1024  # that a block may use at compute capabilities 8.6, 8.9 and 12.0


def compiler_problem() -> str | None:
    try:
        driver.load_nvrtc()
    except OSError as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(compiler_problem() is not None, reason=f"no NVRTC: {compiler_problem()}")


@needs_compiler
@pytest.mark.parametrize("architecture", [80, 86, 90, 100])
def test_source_compiles_for(architecture):
    if architecture not in driver.nvrtc_architectures():
        pytest.skip(f"NVRTC {driver.nvrtc_version()} does not know compute capability {architecture / 10}")
    for part in cubins.SCAN_SOURCES:
        code = cubins.build_cubin(part, HALF, architecture)
        assert code.startswith(b"\x7fELF")
        assert all(name.encode() in code for name in scan_plan.KERNELS[part])


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS[1:], ids=str)
def test_every_kind_of_variant_compiles(variant):
    for part in cubins.SCAN_SOURCES:
        assert cubins.build_cubin(part, variant, 80).startswith(b"\x7fELF")


@needs_compiler
def test_a_compile_error_shows_the_compilers_words():
    with pytest.raises(RuntimeError, match="identifier"):
        driver.compile_cubin("bad.cu", "int f() { return nothing; }", {}, ("--gpu-architecture=sm_80",))


@pytest.mark.parametrize("states", [1, 3, 4, 5, 8, 9, 16, 17, 32])
def test_small_shared_memory_is_enough_for_every_number_of_states(states):
    padded = cubins.padded_states(states)
    assert padded >= states
    stage = cubins.stage_tokens(padded, 100 * 1024)
    variant = ScanVariant(torch.float32, padded, stage, wide_rows=True, wide_states=True)
    assert max(variant.shared_bytes().values()) <= SMALLEST_SHARED_BYTES


def test_refusals_name_what_is_wrong():
    assert "NVIDIA GPU, not cpu" in (unavailable_reason(torch.device("cpu"), torch.float16) or "")
    assert "float64" in (unavailable_reason(torch.device("cuda"), torch.float64) or "")
    assert unavailable_reason(torch.device("cuda", 1000), torch.float16) is not None  # a reason, not an exception


def test_an_old_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    cuda_scan._missing.cache_clear()
    try:
        reason = unavailable_reason(torch.device("cuda", 0), torch.float16)
    finally:
        cuda_scan._missing.cache_clear()
    assert reason is not None
    assert torch.version.cuda is None or ("8.0" in reason and "7.5" in reason)


def test_a_refusal_is_a_constant_for_torch_compile():
    def choose(x):
        return x + 1 if unavailable_reason(x.device, x.dtype) is not None else x - 1

    x = torch.zeros(3)
    assert torch.equal(torch.compile(choose, fullgraph=True, backend="eager")(x), x + 1)


def test_cache_key_follows_everything_that_decides_the_machine_code(monkeypatch):
    def key(part="forward", variant=HALF, architecture=90, version=(13, 0)):
        return cubins.cache_key(part, variant.options(architecture), version)

    keys = {key(), key("backward"), key(variant=VARIANTS[1]), key(architecture=80), key(version=(12, 8))}
    assert len(keys) == 5
    assert key() == key()
    edited = {**cubins.read_sources(), "common.cuh": "// something else"}
    monkeypatch.setattr(cubins, "read_sources", lambda: edited)
    assert key() not in keys


@pytest.fixture
def compilations(monkeypatch):
    """Replaces the compiler by one that counts; returns the list of what it compiled."""
    done = []

    def build(part, variant, architecture):
        done.append((part, variant, architecture))
        return b"machine code " + part.encode()

    monkeypatch.setattr(cubins, "build_cubin", build)
    monkeypatch.setattr(driver, "nvrtc_version", lambda: (13, 0))
    return done


def test_a_variant_is_compiled_once_and_then_read_from_disk(tmp_path, monkeypatch, compilations):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "new" / "folder"))
    first = cubins.cached_cubin("forward", HALF, 90)
    assert cubins.cached_cubin("forward", HALF, 90) == first
    assert cubins.cached_cubin("backward", HALF, 90) != first
    assert cubins.cached_cubin("forward", HALF, 90, rebuild=True) == first
    assert [part for part, *_ in compilations] == ["forward", "backward", "forward"]
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 2  # no temporary file is left


def test_an_unwritable_cache_only_costs_time(tmp_path, monkeypatch, compilations):
    occupied = tmp_path / "file"
    occupied.write_text("no folder")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(occupied / "cache"))
    for _ in range(2):
        assert cubins.cached_cubin("forward", HALF, 90) == b"machine code forward"
    assert len(compilations) == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_cache_folder_is_tolerated(tmp_path, monkeypatch, compilations):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert cubins.cached_cubin("forward", HALF, 90) == b"machine code forward"


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "slicemamba"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache.cache_folder() == tmp_path / "mine"


class Refusing:
    """A driver's module that refuses the code it is given first, as it does a damaged file's."""

    refused: ClassVar[list[bytes]] = []

    def __init__(self, cubin: bytes, device: int) -> None:
        if not self.refused:
            self.refused.append(cubin)
            raise RuntimeError("not an image")


def test_kernels_are_loaded_once_and_a_refused_file_is_compiled_again(tmp_path, monkeypatch, compilations):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(loading, "device_numbers", lambda device: (90, 132, 228 * 1024))
    monkeypatch.setattr(Refusing, "refused", [])
    monkeypatch.setattr(driver, "Module", Refusing)
    monkeypatch.setattr(driver, "Kernel", lambda module, name, threads, shared: (name, threads, shared))
    kernels = loading.load_kernels("forward", 0, HALF, scan_plan.KERNELS["forward"])
    assert [part for part, *_ in compilations] == ["forward"] * 2
    assert list(kernels) == ["forward_scan", "forward_chunk", "forward_carry", "forward_combine"]
    assert kernels["forward_scan"] == ("forward_scan", cubins.THREADS, HALF.shared_bytes()["forward"])
    assert kernels["forward_combine"] == ("forward_combine", scan_plan.FINISH_THREADS, 0)
    assert loading.load_kernels("forward", 0, HALF, scan_plan.KERNELS["forward"]) is kernels
    assert loading.load_kernels("forward", 1, HALF, scan_plan.KERNELS["forward"]) is not kernels


@pytest.mark.parametrize(("blocks", "stages"), [(1, 1), (24, 512), (36, 1024), (144, 512), (384, 128), (300, 5)])
def test_chunks_cover_the_sequence_and_are_never_two(blocks, stages):
    per_chunk = scan_plan.chunk_stages(blocks, stages, 132)
    chunks = -(-stages // per_chunk)
    assert chunks != 2
    assert (chunks - 1) * per_chunk < stages <= chunks * per_chunk
    assert blocks < 2.6 * 132 or chunks == 1
