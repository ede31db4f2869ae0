"""nnU-Net's JSON files: what they hold as far as it is used here, and what makes them anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.names import OPTIONS_IN_PLANS

PLANS_JSON = JsonKind(
    "plans of nnU-Net",
    {
        "plans_name?": str,
        "dataset_name?": str,
        "experiment_planner_used?": str,
        f"{OPTIONS_IN_PLANS}?": {
            "gpu_memory?": float,
            "activation_checkpointing?": bool,
            "blocks_from_stride?": int,
            "decoder_blocks?": bool,
        },
        "configurations": {
            str: {
                "inherits_from?": str,
                "data_identifier?": str,
                "batch_size?": int,
                "patch_size?": [int],
                "spacing?": [float],
                "architecture?": dict,
            }
        },
    },
    "Restore it, or make it again with 'slicemamba plan' (nnU-Net's own: nnUNetv2_plan_experiment)",
    for_nnunet=True,
)

UNSTATED = "not stated"
DATASET_JSON = JsonKind(
    "nnU-Net's description of a dataset",
    {
        "labels": {str: (int, [int])},
        "file_ending": str,
        "channel_names?": {str: str},
        "numTraining?": int,
        "regions_class_order?": ([int], None),
        "dataset?": {str: {"images": [str], "label": str}},
    },
    "Restore it: a whole one lies in nnUNet_raw, or is made by 'slicemamba convert' "
    "(nnUNetv2_convert_old_nnUNet_dataset converts nnU-Net's old format)",
    for_nnunet=True,
)

FINGERPRINT_JSON = JsonKind(
    "nnU-Net's fingerprint of a dataset",
    {
        "shapes_after_crop": [[float]],
        "spacings": [[float]],
        "foreground_intensity_properties_per_channel?": {str: dict},
        "median_relative_size_after_cropping?": float,
    },
    "Delete it, and 'slicemamba plan' makes it again",
    for_nnunet=True,
)

SPLITS_JSON = JsonKind(
    "nnU-Net's split of a dataset",
    [{"train": [str], "val": [str]}],
    "Restore it; a converted dataset has it in nnUNet_raw too. One that nnU-Net made is made again, the same, by the "
    "next training once it is deleted",
    for_nnunet=True,
)

_SCORES: Any = {str: (float, None)}
SUMMARY_JSON = JsonKind(
    "a summary of nnU-Net's validation",
    {
        "metric_per_case": [{"prediction_file": str, "reference_file": str, "metrics": {str: _SCORES}}],
        "mean": {str: _SCORES},
        "foreground_mean": {"Dice": (float, None)},
    },
    "Make it again: nnUNetv2_train ... --val validates once more, nnUNetv2_evaluate_folder evaluates predictions",
    for_nnunet=True,
)

DEBUG_JSON = JsonKind("nnU-Net's debug.json of a training", dict, "Delete it; a training writes it anew")


def terms_of(description: Mapping[str, Any]) -> str:
    """The data's terms of use as a dataset.json has them, under either spelling; UNSTATED where it has none."""
    told = str(description.get("licence") or description.get("license") or "")
    # the second is what earlier versions wrote for converted images of one's own
    return UNSTATED if told in ("", "one's own") else told
