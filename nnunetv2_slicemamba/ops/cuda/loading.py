"""Kernels loaded into a GPU, once per device and variant."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache

import torch

from nnunetv2_slicemamba.ops.cuda import cubins, driver

_lock = threading.Lock()
_loaded: dict[tuple[str, int, cubins.Variant], dict[str, driver.Kernel]] = {}


@lru_cache(maxsize=64)
def device_numbers(device: int) -> tuple[int, int, int]:
    """Compute capability (as 90 for 9.0), multiprocessors, and bytes of shared memory of one, of a CUDA device."""
    properties = torch.cuda.get_device_properties(device)
    capability = 10 * properties.major + properties.minor
    return capability, properties.multi_processor_count, driver.shared_bytes_per_multiprocessor(device)


def load_kernels(
    part: str, device: int, variant: cubins.Variant, names: Mapping[str, tuple[int, str | None]]
) -> dict[str, driver.Kernel]:
    """Kernels of `part` by name, loaded into CUDA device `device`, which must be current.

    part: a source of cubins.py. names: per kernel its threads and the key of its shared memory in the variant's
    `shared_bytes`, None without any. The first call for a variant compiles it or reads it from the disk cache.
    RuntimeError if the compiler or the driver refuses.
    """
    key = (part, device, variant)
    found = _loaded.get(key)
    if found is None:
        with _lock:
            found = _loaded.get(key) or _load(part, device, variant, names)
            _loaded[key] = found
    return found


def _load(
    part: str, device: int, variant: cubins.Variant, names: Mapping[str, tuple[int, str | None]]
) -> dict[str, driver.Kernel]:
    capability = device_numbers(device)[0]
    try:
        module = driver.Module(cubins.cached_cubin(part, variant, capability), device)
    except RuntimeError:  # a damaged file in the cache
        module = driver.Module(cubins.cached_cubin(part, variant, capability, rebuild=True), device)
    shared = variant.shared_bytes()
    return {
        name: driver.Kernel(module, name, threads, shared[which] if which else 0)
        for name, (threads, which) in names.items()
    }
