"""3D training steps at the patch and batch that the planner chooses for a memory target, beside nnU-Net's network.

    python benchmarks/volumes_gpu.py [--target 8] [--size M] [--data WORD ...] [--networks WORD ...] [--csv FOLDER]

Plans of the real planner for made-up fingerprints: hippocampus crops, CT, heart MRI with thick slices (ACDC).
PlainConvUNet is as nnU-Net's planner builds it for the same patch and batch, eager and with torch.compile, as nnU-Net
trains it. Random data, fp16 autocast, medians after warm-up; columns as in network_gpu.py.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from memory_training import DATASETS, plan, use_folders
from network_gpu import BLOCKS, Row, keep, measure, nnunet_network, residual_network, show
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from timing import add_csv
from torch import nn

VOLUMES = {
    **{name: dataset for name, dataset in DATASETS.items() if dataset[0] == "3d_fullres"},
    "ACDC 3D": ("3d_fullres", 1, 4, (10, 160, 160), (10.0, 1.56, 1.56), 60),
}

COMPILED = "nnU-Net PlainConvUNet, torch.compile"


def ours(configuration: dict[str, Any], channels: int, classes: int) -> nn.Module:
    """The final network of a plans' configuration."""
    architecture = configuration["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        classes,
        deep_supervision=True,
    )


def residual(
    spacing: tuple[float, ...], patch: tuple[int, ...], channels: int, classes: int, stride: int, **options: Any
) -> nn.Module:
    """The residual network on nnU-Net's topology for a patch; stride: from which on it has S3 blocks, 0 for none."""
    _, strides, kernels, _, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
    return residual_network(channels, classes, strides, kernels, 320, stride, **options)


def has_one(name: str, words: Sequence[str] | None) -> bool:
    """True if a name has one of the words, or if none are given."""
    return words is None or any(word in name for word in words)


def plain(spacing: tuple[float, ...], patch: tuple[int, ...], channels: int, classes: int) -> nn.Module:
    """nnU-Net's default network for a patch: its topology, its widths, its blocks."""
    _, strides, kernels, _, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
    return nnunet_network(PlainConvUNet, channels, classes, strides, kernels, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=8, help="GB that the plans are made for")
    parser.add_argument("--size", default="M", help="of the paper's network, for which patch and batch are planned")
    parser.add_argument("--data", nargs="+", metavar="WORD", help="only data whose name has one of these words")
    parser.add_argument("--networks", nargs="+", metavar="WORD", help="only networks whose name has one of these words")
    parser.add_argument("--repeats", type=int, default=7)
    add_csv(parser)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        use_folders(Path(folder))
        for name, (kind, channels, classes, _, spacing, _) in VOLUMES.items():
            if not has_one(name, arguments.data):
                continue
            configuration = plan(name, VOLUMES, arguments.size, arguments.target)[0]["configurations"][kind]
            _, _, _, patch, _ = get_pool_and_conv_props(spacing, configuration["patch_size"], 4, 999999)
            batch = configuration["batch_size"]
            shape = f"{name}, B{batch} {'x'.join(str(axis) for axis in patch)}"
            builders: dict[str, Callable[[], nn.Module]] = {
                f"SliceMamba {arguments.size}": partial(ours, configuration, channels, classes),
                **{
                    f"residual L, {blocks}": partial(residual, spacing, patch, channels, classes, stride)
                    for blocks, stride in BLOCKS.items()
                },
                **{
                    f"residual L, blocks from stride 4, expand {expand}": partial(
                        residual, spacing, patch, channels, classes, 4, expand=expand
                    )
                    for expand in (2,)
                },
                "nnU-Net PlainConvUNet": partial(plain, spacing, patch, channels, classes),
                COMPILED: partial(plain, spacing, patch, channels, classes),
            }
            for work, build in builders.items():
                if not has_one(work, arguments.networks):
                    continue
                network, x = build(), torch.randn(batch, channels, *patch, device="cuda")
                rows.append(measure(work, shape, network, x, arguments.repeats, True, work == COMPILED))
                keep("volumes_gpu", rows[-1], arguments.csv)
                del network, x
                gc.collect()
                torch.cuda.empty_cache()
    show(rows)


if __name__ == "__main__":
    main()
