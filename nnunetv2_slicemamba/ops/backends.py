"""Which implementation of the scan runs here? A registry of backends, the automatic choice and its overrides."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

ENVIRONMENT_VARIABLE = "SLICEMAMBA_BACKEND"
AUTO = "auto"


@dataclass(frozen=True)
class Backend:
    """One implementation of the scan.

    scan(x, dt, B, C, A, D, sizes, thickness, delta_bias, dt_weight) -> (batch, L, E): arguments as in `slice_scan`,
    checked, in whatever floating types they came, contiguous or not; delta_bias is always given, dt_weight may be None.
    The recurrence is computed in `inputs.compute_dtype(x.dtype)`; the caller converts the result to x's type.
    why_not(device, dtype of x) -> the reason why it cannot run there, or None if it can.
    """

    name: str
    scan: Callable[..., Tensor]
    why_not: Callable[[torch.device, torch.dtype], str | None]


# Modules are imported where they are used. Import statements, unlike importlib, can be traced by torch.compile, which
# keeps a scan that is an operator, as the CUDA one is, inside the compiled graph.
def _scan_cuda(*arguments: Any) -> Tensor:
    from nnunetv2_slicemamba.ops.cuda import scan

    return scan(*arguments)


def _scan_mamba_ssm(*arguments: Any) -> Tensor:
    from nnunetv2_slicemamba.ops.mamba_ssm_scan import scan

    return scan(*arguments)


def _scan_numba(*arguments: Any) -> Tensor:
    from nnunetv2_slicemamba.ops.numba_scan import scan

    return scan(*arguments)


def _scan_torch(*arguments: Any) -> Tensor:
    from nnunetv2_slicemamba.ops.torch_scan import scan

    return scan(*arguments)


def _scan_reference(*arguments: Any) -> Tensor:
    from nnunetv2_slicemamba.ops.reference import slice_scan_reference

    return slice_scan_reference(*arguments)


def _asks(module: str) -> Callable[[torch.device, torch.dtype], str | None]:
    """The module's own why_not; that it cannot be imported is a reason, too."""

    def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
        try:
            return importlib.import_module(f"nnunetv2_slicemamba.ops.{module}").why_not(device, dtype)
        except ImportError as error:
            return f"its module cannot be imported ({error})"

    return why_not


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("cuda", _scan_cuda, _asks("cuda")),
        Backend("mamba_ssm", _scan_mamba_ssm, _asks("mamba_ssm_scan")),
        Backend("numba", _scan_numba, _asks("numba_scan")),
        Backend("torch", _scan_torch, _asks("torch_scan")),
        Backend("reference", _scan_reference, lambda device, dtype: None),
    )
}
PREFERENCE = ("cuda", "mamba_ssm", "numba", "torch")  # `reference` is never chosen automatically


def get_backend(name: str) -> Backend:
    """The backend of that name; ValueError for an unknown one."""
    if name not in BACKENDS:
        raise ValueError(
            f"unknown scan backend {name!r}, it must be one of {', '.join(BACKENDS)} or {AUTO}; correct it"
        )
    return BACKENDS[name]


@lru_cache(maxsize=256)
def _choose(device: torch.device, dtype: torch.dtype, name: str, source: str) -> str:
    if name == AUTO:
        return next(candidate for candidate in PREFERENCE if BACKENDS[candidate].why_not(device, dtype) is None)
    if name not in BACKENDS:
        raise ValueError(
            f"unknown scan backend {name!r} in {source}, it must be one of {', '.join(BACKENDS)} or {AUTO}; "
            "correct the name or leave it out"
        )
    reason = BACKENDS[name].why_not(device, dtype)
    if reason is not None:
        usable = ", ".join(available_backends(device, dtype))
        raise RuntimeError(
            f"the scan backend {name!r} named in {source} cannot run on {device} with {dtype}: {reason}; "
            f"choose one of {usable}, or leave the choice to {AUTO!r}"
        )
    return name


@torch.compiler.assume_constant_result
def chosen_backend(device: torch.device, dtype: torch.dtype = torch.float32, backend: str | None = None) -> str:
    """The name of the backend that `slice_scan` uses for x on `device` with `dtype`.

    backend: a name or "auto"; None leaves it to the environment variable SLICEMAMBA_BACKEND, unset means "auto".
    Raises ValueError for an unknown name, RuntimeError for a named backend that cannot run there.
    """
    if backend is not None:
        return _choose(device, dtype, backend, "the argument backend")
    name = os.environ.get(ENVIRONMENT_VARIABLE) or AUTO
    return _choose(device, dtype, name, f"the environment variable {ENVIRONMENT_VARIABLE}")


def default_device() -> torch.device:
    """CUDA if there is a device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def explain_backends(
    device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> dict[str, str | None]:
    """Every backend's name with the reason why it cannot run on `device`, None if it can.

    device: default CUDA if there is a device, else the CPU.
    """
    device = default_device() if device is None else torch.device(device)
    return {name: backend.why_not(device, dtype) for name, backend in BACKENDS.items()}


def available_backends(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> list[str]:
    """The names of the backends that can run on `device` (default: CUDA if there is a device, else the CPU).

    In the order in which they are chosen automatically; `reference`, which never is, comes last.
    """
    return [name for name, reason in explain_backends(device, dtype).items() if reason is None]
