"""The fused block's kernels without a GPU: they compile for every supported GPU."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_slicemamba.ops.cuda import bss_kernels, cubins, driver
from nnunetv2_slicemamba.ops.cuda.cubins import BssVariant


def compiler_problem() -> str | None:
    try:
        driver.load_nvrtc()
    except OSError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(compiler_problem() is not None, reason=f"no NVRTC: {compiler_problem()}")
# every type, alignment and number of axes at least once
VARIANTS = {
    80: BssVariant(torch.bfloat16, wide_rows=False, n_dims=3),
    90: BssVariant(torch.float16, wide_rows=True, n_dims=2),
    100: BssVariant(torch.float32, wide_rows=True, n_dims=2),
}


@pytest.mark.parametrize("architecture", VARIANTS)
@pytest.mark.parametrize("part", cubins.BSS_SOURCES)
def test_source_compiles_for(part, architecture):
    if architecture not in driver.nvrtc_architectures():
        pytest.skip(f"NVRTC {driver.nvrtc_version()} does not know compute capability {architecture / 10}")
    code = cubins.build_cubin(part, VARIANTS[architecture], architecture)
    assert code.startswith(b"\x7fELF")
    assert all(name.encode() in code for name in bss_kernels.KERNELS[part])


def test_the_cache_tells_parts_variants_and_sources_apart(monkeypatch):
    def key(part="conv", variant=VARIANTS[90]):
        return cubins.cache_key(part, variant.options(90), (13, 0))

    keys = {key(), key("norm"), key("copy"), *(key(variant=variant) for variant in VARIANTS.values())}
    assert len(keys) == 5
    edited = {**cubins.read_sources(), "convolution.cuh": "// something else"}
    monkeypatch.setattr(cubins, "read_sources", lambda: edited)
    assert key() not in keys
