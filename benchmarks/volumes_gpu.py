"""How fast is a 3D training step beside nnU-Net's, at the patch and batch that our planner chooses for a memory target?

    python benchmarks/volumes_gpu.py [--target 8] [--sizes M L] [--json FILE]

Plans of the real planner for two made-up fingerprints, one like hippocampus crops and one like CT; PlainConvUNet as
nnU-Net's planner builds it for the same patch, same batch, same run. Random data, fp16 autocast, medians after
warm-up; columns as in network_gpu.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from memory_check import DATASETS, plan
from memory_training import use_folders
from network_gpu import Row, measure, print_table
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn


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


def plain(spacing: tuple[float, ...], patch: tuple[int, ...], channels: int, classes: int) -> nn.Module:
    """nnU-Net's network for a patch: its topology, its widths (32 doubled up to 320), its blocks."""
    _, strides, kernels, _, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
    n = len(strides)
    return PlainConvUNet(
        input_channels=channels,
        n_stages=n,
        features_per_stage=[min(320, 32 * 2**i) for i in range(n)],
        conv_op=nn.Conv3d,
        kernel_sizes=kernels,
        strides=strides,
        n_conv_per_stage=[2] * n,
        num_classes=classes,
        n_conv_per_stage_decoder=[2] * (n - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=8, help="GB that the plans are made for")
    parser.add_argument("--sizes", nargs="+", default=["M"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        use_folders(Path(folder))
        for name, (kind, channels, classes, _, spacing, _) in DATASETS.items():
            if kind != "3d_fullres":
                continue
            for size in arguments.sizes:
                plans, _, _ = plan(name, DATASETS, size, arguments.target)
                configuration = plans["configurations"][kind]
                _, _, _, patch, _ = get_pool_and_conv_props(spacing, configuration["patch_size"], 4, 999999)
                batch = configuration["batch_size"]
                shape = f"B{batch} {'x'.join(str(axis) for axis in patch)}"
                for title, network in (
                    (f"SliceMamba {size}, {name}, {shape}", ours(configuration, channels, classes)),
                    (f"PlainConvUNet, {name}, {shape}", plain(spacing, patch, channels, classes)),
                ):
                    x = torch.randn(batch, channels, *patch, device="cuda")
                    rows.append(measure(title, network, x, arguments.repeats, optimise=True))
                    print(rows[-1], flush=True)
                    del network, x
                    gc.collect()
                    torch.cuda.empty_cache()
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
