"""nnU-Net experiment planners that write our networks into the plans, one per size and network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS
from nnunetv2_slicemamba.common.verbosity import SliceMambaWarning
from nnunetv2_slicemamba.planning.architecture import NETWORK_CLASS, architecture_kwargs
from nnunetv2_slicemamba.planning.memory import bytes_per_sample, static_bytes
from nnunetv2_slicemamba.planning.residual import RESIDUAL_CLASS, residual_kwargs
from nnunetv2_slicemamba.planning.sizes import (
    BLOCKS_FROM_STRIDE,
    PAPER,
    SIZES,
    check_size_and_network,
    planner_name_of,
    plans_name_of,
)
from nnunetv2_slicemamba.slicing import candidate_sets

SHARED_DATA = ("2d", "3d_fullres")
USUAL_PREPROCESSOR = "DefaultPreprocessor"


class SharedDataPlanner(ExperimentPlanner):
    """nnU-Net's planner, with nnU-Net's own preprocessed data for 2d and 3d_fullres; base of ours.

    size: a key of SIZES. candidates: of the supernet, as `--candidates` names them. Raises ValueError for a memory
    target that is not positive.
    """

    size = PAPER
    candidates = candidate_sets.PAPER
    default_plans_name: str
    activation_checkpointing = False

    def __init__(
        self,
        dataset_name_or_id: str | int,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = USUAL_PREPROCESSOR,
        plans_name: str | None = None,
        overwrite_target_spacing: list[float] | tuple[float, ...] | None = None,
        suppress_transpose: bool = False,
    ) -> None:
        if not gpu_memory_target_in_gb > 0:
            raise ValueError(
                f"the GPU memory target is {gpu_memory_target_in_gb} GB; give a positive number, 8 is usual"
            )
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name or self.default_plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )

    def with_candidates(self, arch_kwargs: dict[str, Any]) -> dict[str, Any]:
        """arch_kwargs of a network with the supernet's candidates; unchanged for the paper's."""
        found = candidate_sets.named_candidates(self.candidates, len(arch_kwargs["strides"][0]))
        return arch_kwargs if found is None else {**arch_kwargs, "candidates": plain_json(found)}

    def generate_data_identifier(self, configuration_name: str) -> str:
        """nnU-Net's own name where its own planner makes the same data, so that they are preprocessed once.

        3d_lowres keeps its own, since its spacing follows from the patch size. Options of nnUNetv2_plan_experiment that
        change the data give every configuration its own: preprocessing would replace the data of nnU-Net's plans.
        """
        usual = self.overwrite_target_spacing is None and not self.suppress_transpose
        if configuration_name in SHARED_DATA and usual and self.preprocessor_name == USUAL_PREPROCESSOR:
            return f"nnUNetPlans_{configuration_name}"
        return super().generate_data_identifier(configuration_name)

    def save_plans(self, plans: dict[str, Any]) -> None:
        """As nnU-Net, with the options that nothing else in the plans tells, so that they can be made again."""
        plans[OPTIONS_IN_PLANS] = self.planning_options()
        super().save_plans(plans)

    def planning_options(self) -> dict[str, Any]:
        """Options of `slicemamba plan` that the plans were made with, by their names there."""
        return {"gpu_memory": float(self.UNet_vram_target_GB)}


class SliceMambaPlanner(SharedDataPlanner):
    """Plans SliceMamba in the paper's size (widths from 96); patch, strides and batch from the dataset.

    Topology comes from nnU-Net's own rules (see planning.architecture), patch and batch from its own search, fed
    with our memory estimate. 2d and 3d_fullres use nnU-Net's own preprocessed data.
    """

    default_plans_name = plans_name_of(PAPER)
    hybrid = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # nnU-Net computes batch = target / estimate * reference batch; in bytes and for one sample the reference is
        # the target itself
        self.UNet_reference_val_corresp_GB = 1
        self.UNet_reference_val_2d = self.UNet_reference_val_3d = 2**30
        self.UNet_reference_val_corresp_bs_2d = self.UNet_reference_val_corresp_bs_3d = 1

    def network_kwargs(self, strides: Sequence[Sequence[int]]) -> dict[str, Any]:
        """arch_kwargs of our network for nnU-Net's strides."""
        kwargs = architecture_kwargs(strides, self.size, self.activation_checkpointing, self.hybrid)
        return self.with_candidates(kwargs)

    def static_estimate_VRAM_usage(
        self,
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> float:
        """Bytes per sample of our network for nnU-Net's strides, scaled for the part that no batch shares.

        An instance method where nnU-Net has a static one: it calls it on self, and the share that is left for
        activations depends on the target.
        """
        ours = self.network_kwargs(arch_kwargs["strides"])
        target = self.UNet_vram_target_GB * 2**30
        static = static_bytes(input_channels, output_channels, ours)
        # whatever is planned, a tenth of the target is left to activations; the warning is given with the plan
        available = max(target - static, target / 10)
        return bytes_per_sample(patch_size, input_channels, output_channels, ours) * target / available

    def get_plans_for_configuration(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        plan = super().get_plans_for_configuration(*args, **kwargs)
        strides = plan["architecture"]["arch_kwargs"]["strides"]
        ours = self.network_kwargs(strides)
        plan["architecture"] = {
            "network_class_name": NETWORK_CLASS,
            "arch_kwargs": ours,
            "_kw_requires_import": [],
        }
        self._fit_batch(plan, ours)
        return plan

    def _fit_batch(self, plan: dict[str, Any], arch_kwargs: dict[str, Any]) -> None:
        """Lowers a batch that nnU-Net rounded up, never below its minimum of 2; warns if not even that fits."""
        channels = len(self.dataset_json.get("channel_names", self.dataset_json.get("modality", {})))
        classes = len(self.dataset_json["labels"])
        target = self.UNet_vram_target_GB * 2**30
        static = static_bytes(channels, classes, arch_kwargs)
        sample = bytes_per_sample(plan["patch_size"], channels, classes, arch_kwargs)
        largest = max(self.UNet_min_batch_size, int((target - static) / sample))
        plan["batch_size"] = min(int(plan["batch_size"]), largest)
        needed = static + plan["batch_size"] * sample
        # where nnU-Net's search ended because the patch fits, it does so up to rounding
        if needed > 1.001 * target:
            patch = "x".join(str(int(size)) for size in plan["patch_size"])
            smaller = "" if self.size == "S" else "plan a smaller size (--size S), "
            warnings.warn(
                f"size {self.size}, patch {patch}, batch {plan['batch_size']} needs an estimated "
                f"{needed / 2**30:.1f} GB, more than the {self.UNet_vram_target_GB:g} GB aimed at: {smaller}raise "
                "--gpu-memory or use --activation-checkpointing",
                SliceMambaWarning,
                stacklevel=2,
            )


class SliceMambaPlannerResidual(SharedDataPlanner):
    """Plans SliceMambaResidualUNet: nnU-Net's own network, patch and batch, with S3 blocks added.

    blocks_from_stride, decoder_blocks: see planning.residual.
    """

    default_plans_name = plans_name_of(PAPER, "residual")
    blocks_from_stride = BLOCKS_FROM_STRIDE
    decoder_blocks = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        share = Fraction(SIZES[self.size].residual, SIZES[PAPER].residual)
        for name in ("UNet_base_num_features", "UNet_max_features_2d", "UNet_max_features_3d"):
            setattr(self, name, int(getattr(self, name) * share))

    def planning_options(self) -> dict[str, Any]:
        own = {"blocks_from_stride": self.blocks_from_stride, "decoder_blocks": self.decoder_blocks}
        return super().planning_options() | own

    @staticmethod
    def static_estimate_VRAM_usage(
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> float:
        """nnU-Net's estimate, of a network that takes no memory; its own fails where nnUNet_n_proc_DA is 0."""
        planned = (arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels, output_channels)
        with torch.device("meta"):
            network = get_network_from_plans(*planned, allow_init=False)
        return float(network.compute_conv_feature_map_size(patch_size))

    def get_plans_for_configuration(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        plan = super().get_plans_for_configuration(*args, **kwargs)
        planned = plan["architecture"]["arch_kwargs"]
        if len(planned["strides"]) < 2:
            patch = "x".join(str(int(size)) for size in plan["patch_size"])
            edge = self.UNet_featuremap_min_edge_length
            raise ValueError(
                f"patches of {patch} are too small for a residual network, which nnU-Net plans from {2 * edge} pixels "
                f"along two axes, or {3 * edge} along one, on: plan --network paper, or enlarge the images"
            )
        ours = residual_kwargs(planned, self.blocks_from_stride, self.activation_checkpointing, self.decoder_blocks)
        plan["architecture"] = {
            "network_class_name": RESIDUAL_CLASS,
            "arch_kwargs": self.with_candidates(ours),
            "_kw_requires_import": [],
        }
        return plan


def _planner(base: type[SharedDataPlanner], size: str, network: str, **settings: Any) -> type[SharedDataPlanner]:
    """The planner of a size, importable from this module under its name."""
    plain = f"SliceMamba in size {size}: widths from {SIZES[size].width}"
    what = {
        "paper": f"{plain}.",
        "hybrid": f"{plain}, with convolutional stages around the S3 stages; not the paper's network.",
        "residual": f"SliceMambaResidualUNet in size {size}: widths from {SIZES[size].residual}.",
    }
    attributes = {
        "__module__": __name__,
        "__doc__": f"Plans {what[network]}",
        "size": size,
        "default_plans_name": plans_name_of(size, network),
        **settings,
    }
    return type(planner_name_of(size, network), (base,), attributes)


PLANNERS: dict[str, type[SharedDataPlanner]] = {
    size: SliceMambaPlanner if size == PAPER else _planner(SliceMambaPlanner, size, "paper") for size in SIZES
}
HYBRID_PLANNERS = {size: _planner(SliceMambaPlanner, size, "hybrid", hybrid=True) for size in SIZES}
RESIDUAL_PLANNERS: dict[str, type[SharedDataPlanner]] = {
    size: SliceMambaPlannerResidual if size == PAPER else _planner(SliceMambaPlannerResidual, size, "residual")
    for size in SIZES
}
BY_NETWORK = {"paper": PLANNERS, "hybrid": HYBRID_PLANNERS, "residual": RESIDUAL_PLANNERS}
BY_NAME = {planner.__name__: planner for sizes in BY_NETWORK.values() for planner in sizes.values()}
# nnU-Net finds planners as attributes of modules
globals().update(BY_NAME)


def planner_of(size: str, network: str = "paper") -> type[SharedDataPlanner]:
    """The planner of a size in SIZES and a network in NETWORKS; ValueError for another one."""
    check_size_and_network(size, network)
    return BY_NETWORK[network][size]
