"""Speed of the scan on this GPU: one table over sizes and backends, forward and forward plus backward.

    python benchmarks/scan_gpu.py [--backends cuda torch] [--dtype float16] [--repeats 9] [--csv FOLDER]

Times are GPU milliseconds: medians over replays of a CUDA graph, or between events where a backend cannot be captured.
`memory` is the peak of one forward and backward above inputs and gradients of the output, `saved` what the forward pass
leaves for the backward one. `bytes` and `exp` say how much of the forward plus backward time the hardware's ceilings,
measured in the same run, would take for the fewest bytes (inputs read in both passes, outputs and gradients written
once) and for one exponential per state update and pass. `host` is the CPU time to queue one forward and backward, in
microseconds.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import results
import torch
from timing import add_csv, as_graph, device_name, gpu_milliseconds, queueing_milliseconds
from torch import Tensor

from nnunetv2_slicemamba.ops import slice_scan
from nnunetv2_slicemamba.ops.backends import explain_backends
from nnunetv2_slicemamba.ops.cuda import cubins, driver


@dataclass(frozen=True)
class Case:
    """Sizes of one scan: images, tokens per axis, channels E, states N."""

    batch: int
    sizes: tuple[int, ...]
    E: int
    N: int = 16

    @property
    def K(self) -> int:
        return 2 * len(self.sizes)

    @property
    def L(self) -> int:
        return prod(self.sizes)

    def __str__(self) -> str:
        return f"B{self.batch} K{self.K} E{self.E} L{self.L} N{self.N}"


CASES = (
    Case(32, (64, 64), 192),
    Case(32, (32, 32), 384),
    Case(32, (16, 16), 768),
    Case(32, (8, 8), 1536),
    Case(12, (128, 128), 192),
    Case(2, (128, 128), 192),
    Case(2, (32, 32, 32), 192),
    Case(2, (16, 16, 16), 384),
)
LASTING = 20.0  # milliseconds of a measurement at least
EXPONENTIALS = r"""
struct Arguments { float* out; int rounds, unused; };
extern "C" __global__ void exponentials(const Arguments p) {
    float v[16];
    for (int i = 0; i < 16; i++) v[i] = -1.f - threadIdx.x * 1e-3f - i;
    for (int r = 0; r < p.rounds; r++)
#pragma unroll
        for (int i = 0; i < 16; i++) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(v[i]));
    float sum = 0.f;
    for (int i = 0; i < 16; i++) sum += v[i];
    if (sum == 12345.f) *p.out = sum;
}
"""


def make_inputs(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """(x, dt, B, C, A, D, delta_bias, dy) with the steps of a freshly initialised network, on the GPU."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", dtype=dtype)

    b, L, E, K, N = case.batch, case.L, case.E, case.K, case.N
    A = -torch.arange(1.0, N + 1, device="cuda").repeat(K, E, 1)
    bias = torch.rand(K, E, device="cuda") * 4.6 - 6.9  # softplus between 1e-3 and 0.1
    tensors = [normal(b, L, E), normal(b, L, K, E), normal(b, L, K, N), normal(b, L, K, N), A]
    tensors += [torch.ones(K, E, device="cuda"), bias]
    return [t.requires_grad_() for t in tensors] + [normal(b, L, E)]


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median GPU milliseconds of one call of `work`, as a CUDA graph where it can be captured."""
    return gpu_milliseconds(as_graph(work), repeats, LASTING)


def copy_bandwidth(repeats: int) -> float:
    """Bytes per second of an elementwise kernel on a large tensor, read plus written."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / (1e-3 * timed(lambda: torch.neg(source, out=target), repeats))


def exponential_rate(repeats: int) -> float:
    """Base-2 exponentials per second of the special function units."""
    major, minor = torch.cuda.get_device_capability()
    options = (f"--gpu-architecture=sm_{major}{minor}",)
    kernel = driver.Kernel(
        driver.Module(driver.compile_cubin("exponentials.cu", EXPONENTIALS, {}, options), torch.cuda.current_device()),
        "exponentials",
        256,
        0,
    )
    out, rounds = torch.zeros(1, device="cuda"), 512
    blocks = 8 * torch.cuda.get_device_properties(0).multi_processor_count
    arguments = driver.pack_arguments(struct.pack("Pii", out.data_ptr(), rounds, 0))
    work = lambda: kernel.launch(blocks, arguments, torch.cuda.current_stream().cuda_stream)  # noqa: E731
    return blocks * 256 * 16 * rounds / (1e-3 * timed(work, repeats))


def measure(case: Case, backend: str, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Milliseconds, bytes and microseconds of one backend; see the head of this file."""
    *tensors, dy = make_inputs(case, dtype)
    x, dt, B, C, A, D, bias = tensors
    thickness = (2,) * len(case.sizes)

    def forward() -> Tensor:
        return slice_scan(x, dt, B, C, A, D, case.sizes, thickness, delta_bias=bias, backend=backend)

    def both() -> None:
        torch.autograd.grad(forward(), tensors, dy)

    def infer() -> None:
        with torch.no_grad():
            forward()

    result = {"forward": timed(infer, repeats), "both": timed(both, repeats)}
    result["host"] = 1e3 * queueing_milliseconds(both)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out = forward()
    result["saved"] = torch.cuda.memory_allocated() - before - out.numel() * out.element_size()
    torch.autograd.grad(out, tensors, dy)
    result["memory"] = torch.cuda.max_memory_allocated() - before
    return result


def fewest_bytes(case: Case, item: int) -> int:
    """Bytes of inputs, read forward and backward, and of outputs and gradients, written once."""
    x = case.batch * case.L * case.E
    dt, states = x * case.K, 2 * case.batch * case.L * case.K * case.N
    inputs = x + dt + states
    return item * (2 * inputs + x + x + inputs)  # + output, its gradient, the inputs' gradients


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["cuda", "mamba_ssm", "torch"])
    parser.add_argument("--dtype", default="float16", choices=[str(t).removeprefix("torch.") for t in cubins.ELEMENTS])
    parser.add_argument("--repeats", type=int, default=9)
    add_csv(parser)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    item = dtype.itemsize
    reasons = explain_backends("cuda", dtype)
    bandwidth, exponentials = copy_bandwidth(arguments.repeats), exponential_rate(arguments.repeats)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.dtype} inputs")
    print(f"ceilings: copy {bandwidth / 1e12:.2f} TB/s, exponentials {exponentials / 1e12:.2f}e12/s")
    for backend in arguments.backends:
        if reasons.get(backend, "there is no such backend") is not None:
            print(f"without {backend}: {reasons.get(backend, 'there is no such backend')}")
    print(
        f"{'case':26} {'backend':9} {'forward':>8} {'fwd+bwd':>8} {'memory':>9} {'saved':>9} {'bytes':>6} {'exp':>5} "
        f"{'host':>6}"
    )
    figures: list[tuple[str, str, str, float | None, str]] = []
    for case in CASES:
        for backend in arguments.backends:
            if reasons.get(backend, "") is not None:
                continue
            try:
                got = measure(case, backend, dtype, arguments.repeats)
            except torch.cuda.OutOfMemoryError:
                print(f"{case!s:26} {backend:9} out of memory")
                continue
            finally:
                torch.cuda.empty_cache()
            updates = 2 * case.batch * case.K * case.L * case.E * case.N
            print(
                f"{case!s:26} {backend:9} {got['forward']:8.3f} {got['both']:8.3f} {got['memory'] / 2**20:6.0f}MiB "
                f"{got['saved'] / 2**20:6.0f}MiB {1e5 * fewest_bytes(case, item) / bandwidth / got['both']:5.0f}% "
                f"{1e5 * updates / exponentials / got['both']:4.0f}% {got['host']:6.0f}",
                flush=True,
            )
            of = (f"scan, {backend}, {arguments.dtype}", str(case))
            figures += [(*of, "forward", got["forward"], "ms"), (*of, "forward + backward", got["both"], "ms")]
            figures += [(*of, "memory", got["memory"] / 2**20, "MiB"), (*of, "host", got["host"] / 1e3, "ms")]
    if arguments.csv is not None:
        results.write_timings(arguments.csv, "scan_gpu", device_name(torch.device("cuda")), figures)


if __name__ == "__main__":
    main()
