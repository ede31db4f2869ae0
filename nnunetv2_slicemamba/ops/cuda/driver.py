"""Compilation and launch of kernels without a CUDA toolkit: NVRTC and the driver through ctypes.

Both libraries are there wherever PyTorch runs on an NVIDIA GPU: the driver with the GPU, NVRTC as a dependency of
PyTorch's own wheels. Only Linux is looked after.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
SHARED_BYTES_PER_MULTIPROCESSOR = 81  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
INVALID_CONTEXT = 201  # CUDA_ERROR_INVALID_CONTEXT
DEFAULT_SHARED_BYTES = 48 * 1024  # a kernel gets more only after asking for it


@lru_cache(maxsize=1)
def load_driver() -> ctypes.CDLL:
    """The library libcuda with the argument types of the calls used here; OSError where there is none."""
    if sys.platform != "linux":
        raise OSError(f"the CUDA driver is looked for on Linux only, this is {sys.platform}")
    driver = ctypes.CDLL("libcuda.so.1")
    pointer, unsigned = ctypes.c_void_p, ctypes.c_uint
    driver.cuLaunchKernel.argtypes = [pointer, *[unsigned] * 7, pointer, pointer, pointer]
    driver.cuModuleLoadData.argtypes = [pointer, ctypes.c_char_p]
    driver.cuModuleGetFunction.argtypes = [pointer, pointer, ctypes.c_char_p]
    driver.cuFuncSetAttribute.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
    driver.cuDeviceGetAttribute.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
    driver.cuGetErrorString.argtypes = [ctypes.c_int, pointer]
    driver.cuDeviceGet.argtypes = [pointer, ctypes.c_int]
    driver.cuDevicePrimaryCtxRetain.argtypes = [pointer, ctypes.c_int]
    driver.cuCtxSetCurrent.argtypes = [pointer]
    driver.cuCtxGetCurrent.argtypes = [pointer]
    return driver


def check(code: int, doing: str) -> None:
    """Raises RuntimeError with the driver's own words if `code` is not success."""
    if code:
        text = ctypes.c_char_p()
        load_driver().cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"{doing} failed with CUDA error {code}: {(text.value or b'unknown').decode()}")


def shared_bytes_per_multiprocessor(device: int) -> int:
    """Bytes of shared memory of one multiprocessor of CUDA device `device`."""
    value = ctypes.c_int()
    code = load_driver().cuDeviceGetAttribute(ctypes.byref(value), SHARED_BYTES_PER_MULTIPROCESSOR, device)
    check(code, "asking the GPU for its shared memory")
    return value.value


@lru_cache(maxsize=64)
def _primary_context(device: int) -> ctypes.c_void_p:
    number, context = ctypes.c_int(), ctypes.c_void_p()
    check(load_driver().cuDeviceGet(ctypes.byref(number), device), f"finding CUDA device {device}")
    code = load_driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), number)
    check(code, f"finding the context of CUDA device {device}")
    return context


def use_primary_context(device: int) -> None:
    """Makes the context that PyTorch uses for CUDA device `device` the calling thread's.

    PyTorch selects the device of a new thread, such as autograd's, but the CUDA runtime binds the context only with the
    first call that needs it.
    """
    check(load_driver().cuCtxSetCurrent(_primary_context(device)), f"using the context of CUDA device {device}")


def ensure_context(device: int) -> None:
    """Calls `use_primary_context` if the calling thread has no context at all."""
    context = ctypes.c_void_p()
    check(load_driver().cuCtxGetCurrent(ctypes.byref(context)), "asking for the current CUDA context")
    if not context.value:
        use_primary_context(device)


class Kernel:
    """A function of a loaded module that takes one struct by value.

    shared_bytes: dynamic shared memory that every launch of it gets.
    """

    def __init__(self, module: Module, name: str, threads: int, shared_bytes: int) -> None:
        self.module = module  # keeps it loaded
        self.threads, self.shared_bytes, self.name = threads, shared_bytes, name
        function = ctypes.c_void_p()
        driver = load_driver()
        check(driver.cuModuleGetFunction(ctypes.byref(function), module.handle, name.encode()), f"finding {name}")
        if shared_bytes > DEFAULT_SHARED_BYTES:
            code = driver.cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_BYTES, shared_bytes)
            check(code, f"giving {name} {shared_bytes} bytes of shared memory")
        self.function = function.value
        self._launch = driver.cuLaunchKernel

    def launch(self, blocks: int, arguments: ctypes.Array, stream: int) -> None:
        """Queues `blocks` blocks on `stream`; `arguments` from `pack_arguments`. The device must be current."""
        if not blocks:
            return
        shape = (blocks, 1, 1, self.threads, 1, 1, self.shared_bytes)
        code = self._launch(self.function, *shape, stream, arguments, None)
        if code == INVALID_CONTEXT:
            use_primary_context(self.module.device)
            code = self._launch(self.function, *shape, stream, arguments, None)
        if code:
            check(code, f"launching {self.name} with {blocks} blocks")


class Module:
    """A cubin loaded into the context of CUDA device `device`. RuntimeError if the driver does not take it."""

    def __init__(self, cubin: bytes, device: int) -> None:
        use_primary_context(device)
        self.device = device
        self.handle = ctypes.c_void_p()
        check(load_driver().cuModuleLoadData(ctypes.byref(self.handle), cubin), "loading the scan kernels")


def pack_arguments(struct_bytes: bytes) -> ctypes.Array:
    """One kernel argument, a struct, in the form that a launch takes."""
    buffer = ctypes.create_string_buffer(struct_bytes, len(struct_bytes))
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(buffer))
    pointers.keep = buffer  # type: ignore[attr-defined]  # lives as long as the pointer to it
    return pointers


def _nvrtc_candidates() -> Iterator[str]:
    """Places where NVRTC may be: PyTorch's dependencies, PyTorch's own folder, the system."""
    for package, pattern in (("nvidia", "*/lib/libnvrtc.so.*"), ("torch", "lib/libnvrtc[.-]*so*")):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from (str(path) for path in sorted(Path(folder).glob(pattern)) if "builtins" not in path.name)
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


@lru_cache(maxsize=1)
def load_nvrtc() -> ctypes.CDLL:
    """The run-time compiler; OSError with what to install where there is none."""
    problems = []
    for candidate in _nvrtc_candidates():
        try:
            library = ctypes.CDLL(candidate)
        except OSError as error:
            problems.append(str(error))
        else:
            library.nvrtcGetErrorString.restype = ctypes.c_char_p
            return library
    raise OSError(
        "NVRTC, the CUDA run-time compiler, was not found; install the package nvidia-cuda-nvrtc of PyTorch's CUDA "
        f"version ({'; '.join(problems)})"
    )


@lru_cache(maxsize=1)
def nvrtc_version() -> tuple[int, int]:
    """Version (major, minor) of the run-time compiler; OSError where there is none."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    load_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


@lru_cache(maxsize=1)
def nvrtc_architectures() -> tuple[int, ...]:
    """The compute capabilities, as 80 for 8.0, that the run-time compiler knows; OSError where there is none."""
    nvrtc, count = load_nvrtc(), ctypes.c_int()
    nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    values = (ctypes.c_int * count.value)()
    nvrtc.nvrtcGetSupportedArchs(values)
    return tuple(values)


def compile_cubin(name: str, source: str, headers: dict[str, str], options: tuple[str, ...]) -> bytes:
    """Machine code for `source`; RuntimeError with the compiler's log if it does not compile.

    name: file name for messages. headers: text by the name under which the source includes it.
    """
    nvrtc = load_nvrtc()
    program = ctypes.c_void_p()

    def run(function: str, *arguments: object) -> None:
        code = getattr(nvrtc, function)(*arguments)
        if code:
            size = ctypes.c_size_t()
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(max(size.value, 1))
            nvrtc.nvrtcGetProgramLog(program, log)
            text = nvrtc.nvrtcGetErrorString(code).decode()
            raise RuntimeError(f"{function} failed on {name}: {text}\n{log.value.decode(errors='replace')}")

    def strings(values: list[str]) -> ctypes.Array:
        return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))

    run(
        "nvrtcCreateProgram",
        ctypes.byref(program),
        source.encode(),
        name.encode(),
        len(headers),
        strings(list(headers.values())),
        strings(list(headers)),
    )
    try:
        run("nvrtcCompileProgram", program, len(options), strings(list(options)))
        size = ctypes.c_size_t()
        run("nvrtcGetCUBINSize", program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        run("nvrtcGetCUBIN", program, cubin)
        return cubin.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
