"""Speed of instance norm with leaky ReLU on this GPU, for every stage of nnU-Net's default networks.

    python benchmarks/instance_norm_gpu.py [--shapes 2d 3d] [--dtype float16] [--resident 4 3] [--whole 1024]
    python benchmarks/instance_norm_gpu.py --network [--kernels 30]

Times are GPU milliseconds, medians over replays of a CUDA graph of one pass, with inputs that are in the GPU's cache
only as far as they fit. "share" is the part of the memory's bandwidth, --bandwidth, that the fewest bytes need: forward
reads x and writes the result, backward reads x and the gradient and writes the gradient of x. It can be above 1 where
the cache holds everything. The last line adds up a training step of the network: two norms per stage of the encoder,
two per stage of the decoder.

"ours" is `instance_norm_leaky_relu`; "eager" is PyTorch's instance norm and leaky ReLU for contiguous and for
channels-last images; "compiled" is the latter by torch.compile. --resident and --whole change how ours cuts images
into chunks, to find the best values for a GPU.

--network measures training steps of nnU-Net's default 2D network instead, batch 20 of 3x256x256, fp16 autocast: as it
is, by torch.compile, and channels last with our norms and without the convolutions' biases. --kernels N lists the N
kernels that take most of the last one's time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from math import prod

import results
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from network_gpu import Row, keep, measure, show, unet2d
from rich.console import Console
from rich.table import Table
from timing import add_csv, as_graph, device_name, gpu_milliseconds
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from nnunetv2_slicemamba.ops.cuda import instance_norm
from nnunetv2_slicemamba.ops.instance_norm import instance_norm_leaky_relu

# batch, channels, sizes of every stage; nnU-Net's default networks
STAGES = {
    "2d": [(20, c, 256 >> i, 256 >> i) for i, c in enumerate((32, 64, 128, 256, 512, 512, 512))],
    "3d": [(2, c, *[128 >> i] * 3) for i, c in enumerate((32, 64, 128, 256, 320, 320))],
}
LASTING = 20.0  # milliseconds of a measurement at least
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
Norm = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Instance norm and leaky ReLU as nnU-Net's networks compute them. x: (B, C, *spatial); weight, bias: (C,)."""
    return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias, eps=1e-5), 0.01)


def ways() -> dict[str, tuple[Norm, bool]]:
    """Name: what computes it, and whether its images are channels last."""
    return {
        "ours": (instance_norm_leaky_relu, True),
        "eager, contiguous": (plain, False),
        "eager, channels last": (plain, True),
        "compiled, channels last": (torch.compile(plain, dynamic=False), True),
        "compiled, contiguous": (torch.compile(plain, dynamic=False), False),
    }


def measure_norm(
    norm: Norm, last: bool, shape: tuple[int, ...], dtype: torch.dtype, repeats: int
) -> tuple[float, float]:
    """Milliseconds of the forward pass and of the backward pass."""
    torch.compiler.reset()  # the compiler gives up after a few sizes
    memory_format = FORMATS[len(shape)] if last else torch.contiguous_format
    x, dout = (
        torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=memory_format).requires_grad_(i == 0)
        for i in range(2)
    )
    weight, bias = (torch.randn(shape[1], device="cuda", requires_grad=True) for _ in range(2))
    inputs = (x, weight, bias)

    def both() -> object:
        return torch.autograd.grad(norm(*inputs), inputs, dout)

    def forward() -> Tensor:
        return norm(*inputs)  # with what it keeps for the backward pass

    for _ in range(2):
        both()
    timed = partial(gpu_milliseconds, repeats=repeats, at_least=LASTING)
    alone, together = timed(as_graph(forward)), timed(as_graph(both))
    return alone, together - alone


class OurNorm(nn.Module):
    """An instance norm of nnU-Net's network and the leaky ReLU behind it."""

    def __init__(self, norm: nn.Module, slope: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.slope = norm.weight, norm.bias, norm.eps, slope

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm_leaky_relu(x, self.weight, self.bias, self.eps, self.slope)


def with_our_norms(network: nn.Module) -> nn.Module:
    """The network, channels last, its norms and leaky ReLUs replaced by ours, convolutions before them without bias."""
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[2], nn.LeakyReLU):
            module[0].bias = None
            module[1], module[2] = OurNorm(module[1], module[2].negative_slope), nn.Identity()
    assert sum(isinstance(m, OurNorm) for m in network.modules()) == 26
    return network.to(memory_format=torch.channels_last)


def list_kernels(network: nn.Module, x: Tensor, count: int) -> None:
    """Prints the kernels that take most of an eager training step's time."""
    network = network.cuda().train()

    def step() -> None:
        with torch.autocast("cuda"):
            outputs = network(x)
        torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    kernels = sorted(profiled.key_averages(), key=lambda k: -k.self_device_time_total)
    table = Table(
        "kernel", "ms", "calls", title=f"{sum(k.self_device_time_total for k in kernels) / 1e3:.2f} ms in all"
    )
    for kernel in kernels[:count]:
        table.add_row(kernel.key[:110], f"{kernel.self_device_time_total / 1e3:.3f}", str(kernel.count))
    Console(width=140).print(table)


def measure_network(repeats: int, kernels: int) -> list[Row]:
    """Training steps of nnU-Net's network, the last of the rows with our norms."""
    torch.backends.cudnn.benchmark = True
    size, x = "B20 256x256", torch.randn(20, 3, 256, 256, device="cuda")
    rows = [measure("nnU-Net", size, unet2d(PlainConvUNet), x, repeats, True, compiled) for compiled in (False, True)]
    rows[1].work += ", torch.compile"
    x = x.contiguous(memory_format=torch.channels_last)
    plain = unet2d(PlainConvUNet).to(memory_format=torch.channels_last)
    rows.append(measure("nnU-Net, channels last", size, plain, x, repeats, True))
    rows.append(measure("our norms, channels last", size, with_our_norms(unet2d(PlainConvUNet)), x, repeats, True))
    if kernels:
        list_kernels(with_our_norms(unet2d(PlainConvUNet)), x, kernels)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=STAGES, default=["2d"])
    parser.add_argument("--dtype", choices=["float16", "bfloat16", "float32"], default="float16")
    parser.add_argument("--ways", nargs="+", default=None, help="only these, by the start of their names")
    parser.add_argument("--bandwidth", type=float, default=4.8, help="of the GPU's memory, TB/s")
    parser.add_argument(
        "--resident", type=int, nargs=2, default=None, help="ours: blocks per multiprocessor, two passes"
    )
    parser.add_argument("--whole", type=int, default=None, help="ours: most positions for a single launch")
    parser.add_argument("--network", action="store_true", help="training steps of a network instead")
    parser.add_argument("--kernels", type=int, default=0, help="with --network: how many kernels to list")
    parser.add_argument("--repeats", type=int, default=9)
    add_csv(parser)
    arguments = parser.parse_args()
    if arguments.network:
        rows = measure_network(arguments.repeats, arguments.kernels)
        for row in rows:
            keep("instance_norm_gpu", row, arguments.csv)
        show(rows)
        return
    if arguments.resident is not None:
        instance_norm.FORWARD_RESIDENT, instance_norm.BACKWARD_RESIDENT = arguments.resident
    if arguments.whole is not None:
        instance_norm.WHOLE_POSITIONS = arguments.whole
    dtype = getattr(torch, arguments.dtype)
    chosen = {
        name: way
        for name, way in ways().items()
        if arguments.ways is None or any(name.startswith(start) for start in arguments.ways)
    }
    table = Table("shape", "what", "forward ms", "share", "backward ms", "share", title=torch.cuda.get_device_name())
    figures = []
    for network in arguments.shapes:
        sums = {name: [0.0, 0.0] for name in chosen}
        stages = STAGES[network]
        for i, shape in enumerate(stages):
            size = f"B{shape[0]} C{shape[1]} {'x'.join(map(str, shape[2:]))}"
            floor = 1e3 * prod(shape) * dtype.itemsize / (arguments.bandwidth * 1e12)
            for name, (norm, last) in chosen.items():
                forward, backward = measure_norm(norm, last, shape, dtype, arguments.repeats)
                print(f"{size:24} {name:24} {forward:7.4f} {backward:7.4f}", flush=True)
                shares = (2 * floor / forward, 3 * floor / backward)
                cells = (f"{forward:.4f}", f"{shares[0]:.2f}", f"{backward:.4f}", f"{shares[1]:.2f}")
                table.add_row(size, name, *cells)
                figures += [(name, size, "forward", forward, "ms"), (name, size, "backward", backward, "ms")]
                norms = 2 if i == len(stages) - 1 else 4  # the deepest stage has no decoder
                sums[name][0] += norms * forward
                sums[name][1] += norms * backward
            torch.cuda.empty_cache()
        for name, (forward, backward) in sums.items():
            table.add_row(f"{network}, all norms", name, f"{forward:.3f}", "", f"{backward:.3f}", "")
    Console(width=120).print(table)
    if arguments.csv is not None:
        results.write_timings(arguments.csv, "instance_norm_gpu", device_name(torch.device("cuda")), figures)


if __name__ == "__main__":
    main()
