"""The backends of the scan, and the choice of the one that runs a scan or a whole block on a device.

Another backend is a file of its own with `scan` and `unavailable_reason`, and one line in BACKENDS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nnunetv2_slicemamba.ops import cuda_scan, mamba_ssm_scan, numba_scan, reference, torch_scan
from nnunetv2_slicemamba.ops.bss_parameters import BssParameters
from nnunetv2_slicemamba.ops.compiling import constant_while_compiling

ENVIRONMENT_VARIABLE = "SLICEMAMBA_BACKEND"
FUSED_VARIABLE = "SLICEMAMBA_FUSED"
AUTO = "auto"

WholeBlock = Callable[[Tensor, BssParameters, tuple[int, ...], torch.dtype], Tensor | None]
LayerNorm = Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor | None]
InstanceNorm = Callable[[Tensor, Tensor, Tensor, float, float], Tensor | None]


def _runs_everywhere(device: torch.device, dtype: torch.dtype) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of the scan, and of what else of a block it has kernels for.

    scan(x, dt, B, C, A, D, sizes, thickness, delta_bias, dt_weight) -> (batch, L, E): arguments as in `slice_scan`,
    checked, in whatever floating types they came, contiguous or not; delta_bias is always given, dt_weight may be None.
    The recurrence is computed in `recurrence_dtype(x.dtype)`; the caller converts the result to x's type.
    unavailable_reason(device, dtype of x) -> the reason why it cannot run there, or None if it can. bss(x, parameters,
    thickness, compute dtype) -> a whole block's result (batch, *sizes, C), without scans for thickness (); None where
    its kernels do not take this one. layer_norm(x, weight, bias, dtype of the result) -> the same for LayerNorm over
    the last axis. instance_norm(x, weight, bias, eps, slope) -> the same for `instance_norm_leaky_relu`, like x.
    automatic: chosen without being named.
    """

    name: str
    scan: Callable[..., Tensor]
    unavailable_reason: Callable[[torch.device, torch.dtype], str | None] = _runs_everywhere
    bss: WholeBlock | None = None
    layer_norm: LayerNorm | None = None
    instance_norm: InstanceNorm | None = None
    automatic: bool = True


# in the order in which they are chosen
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            *("cuda", cuda_scan.scan, cuda_scan.unavailable_reason),
            *(cuda_scan.bss, cuda_scan.layer_norm, cuda_scan.instance_norm),
        ),
        Backend("mamba_ssm", mamba_ssm_scan.scan, mamba_ssm_scan.unavailable_reason),
        Backend("numba", numba_scan.scan, numba_scan.unavailable_reason),
        Backend("torch", torch_scan.scan),
        Backend("reference", reference.slice_scan_reference, automatic=False),
    )
}
PREFERENCE = tuple(name for name, backend in BACKENDS.items() if backend.automatic)


@lru_cache(maxsize=256)
def _choose(device: torch.device, dtype: torch.dtype, name: str, source: str) -> str:
    if name == AUTO:
        return next(chosen for chosen in PREFERENCE if BACKENDS[chosen].unavailable_reason(device, dtype) is None)
    if name not in BACKENDS:
        raise ValueError(
            f"unknown scan backend {name!r} in {source}, it must be one of {', '.join(BACKENDS)} or {AUTO}; "
            "correct the name or leave it out"
        )
    reason = BACKENDS[name].unavailable_reason(device, dtype)
    if reason is not None:
        usable = ", ".join(available_backends(device, dtype))
        raise RuntimeError(
            f"the scan backend {name!r} named in {source} cannot run on {device} with {dtype}: {reason}; "
            f"choose one of {usable}, or leave the choice to {AUTO!r}"
        )
    return name


@constant_while_compiling
def chosen_backend(device: torch.device, dtype: torch.dtype = torch.float32, backend: str | None = None) -> str:
    """Name of the backend that `slice_scan` uses for x on `device` with `dtype`.

    backend: a name or "auto"; None leaves it to the environment variable SLICEMAMBA_BACKEND, unset means "auto".
    Raises ValueError for an unknown name, RuntimeError for a named backend that cannot run there.
    """
    if backend is not None:
        return _choose(device, dtype, backend, "the argument backend")
    name = os.environ.get(ENVIRONMENT_VARIABLE) or AUTO
    return _choose(device, dtype, name, f"the environment variable {ENVIRONMENT_VARIABLE}")


@constant_while_compiling
def block_backend(device: torch.device, dtype: torch.dtype = torch.float32) -> str | None:
    """Name of the backend with kernels for whole blocks of compute type `dtype` on `device`, None where there is none.

    It is the one that scans there, if it has such kernels; SLICEMAMBA_FUSED=0 switches them off. Raises as
    `chosen_backend`.
    """
    if os.environ.get(FUSED_VARIABLE) == "0":
        return None
    name = chosen_backend(device, dtype)
    return None if BACKENDS[name].bss is None else name


def explain_backends(
    device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, str | None]:
    """Every backend's name with the reason why it cannot run on `device`, None if it can.

    device: default CUDA if there is a device, else the CPU.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return {name: backend.unavailable_reason(device, dtype) for name, backend in BACKENDS.items()}


def available_backends(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> list[str]:
    """Names of the backends that can run on `device` (default: CUDA if there is a device, else the CPU).

    In the order in which they are chosen automatically; `reference`, which never is, comes last.
    """
    return [name for name, reason in explain_backends(device, dtype).items() if reason is None]
