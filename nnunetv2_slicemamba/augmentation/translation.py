"""nnU-Net's transforms translated, one by one, to operations on whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.nnunet import random_binary_operator as morphology
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform as RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunetv2_slicemamba.augmentation.batch import Twin
from nnunetv2_slicemamba.augmentation.blur import GaussianBlur
from nnunetv2_slicemamba.augmentation.brightness import Brightness, Contrast
from nnunetv2_slicemamba.augmentation.cascade import Morphology, RemoveComponent, closed, dilated, eroded, opened
from nnunetv2_slicemamba.augmentation.deep_supervision import DeepSupervision
from nnunetv2_slicemamba.augmentation.gamma import Gamma
from nnunetv2_slicemamba.augmentation.labels import Mask, OneHot, Regions, ReplaceLabel
from nnunetv2_slicemamba.augmentation.low_resolution import LowResolution
from nnunetv2_slicemamba.augmentation.mirroring import Mirror
from nnunetv2_slicemamba.augmentation.noise import GaussianNoise
from nnunetv2_slicemamba.augmentation.policy import Policy, Step
from nnunetv2_slicemamba.augmentation.scalars import known_scalar
from nnunetv2_slicemamba.augmentation.spatial import PerSlice, Spatial
from nnunetv2_slicemamba.augmentation.unknown import UnknownTransformError

OPERATIONS = {
    morphology.binary_dilation_torch: dilated,
    morphology.binary_erosion_torch: eroded,
    morphology.binary_opening_torch: opened,
    morphology.binary_closing_torch: closed,
}
# parameters of batchgeneratorsv2 that only say how it computes what it does
IMMATERIAL = {
    SpatialTransform: {
        "bg_style_seg_sampling",
        "center_deformation",
        "elastic_deform_scale",
        "elastic_deform_magnitude",
        "p_synchronize_def_scale_across_axes",
    },
    GaussianBlurTransform: {"benchmark", "benchmark_use_fft", "benchmark_num_runs"},
    SimulateLowResolutionTransform: {"upmodes"},
}


def translate(transform: BasicTransform, labels: Sequence[int]) -> Policy:
    """The batched policy that does what nnU-Net's transforms do to single samples.

    labels: all that segmentations hold. UnknownTransformError if a transform, or one of its parameters or its value,
    is not known; a transform of a subclass is not, as it may do anything else.
    """
    return Policy(tuple(_steps(_flat(transform), tuple(labels))))


def _flat(transform: BasicTransform) -> list[BasicTransform]:
    if type(transform) is ComposeTransforms:
        return [inner for part in transform.transforms for inner in _flat(part)]
    return [transform]


def _steps(transforms: list[BasicTransform], labels: tuple[int, ...]) -> list[Step]:
    steps, waiting = [], list(transforms)
    while waiting:
        transform, probability = waiting.pop(0), 1.0
        if type(transform) is Convert3DTo2DTransform:
            if [type(t) for t in waiting[:2]] != [SpatialTransform, Convert2DTo3DTransform]:
                raise UnknownTransformError("slices of a volume are changed by something else than a SpatialTransform")
            steps.append(Step(PerSlice(_spatial(waiting[0], labels))))
            waiting = waiting[2:]
            continue
        if type(transform) is RandomTransform:
            _check_parameters(transform, {"transform", "apply_probability"})
            transform, probability = transform.transform, transform.apply_probability
        if type(transform) is SpatialTransform:
            if probability != 1:
                raise UnknownTransformError("a SpatialTransform in a RandomTransform crops only some samples")
            steps.append(Step(_spatial(transform, labels)))
        elif type(transform) in TRANSLATORS:
            steps.append(Step(TRANSLATORS[type(transform)](transform), probability))
        else:
            raise UnknownTransformError(type(transform).__name__)
    return steps


def _check_parameters(transform: BasicTransform, known: set[str]) -> None:
    """Raises UnknownTransformError unless the transform has these parameters: another version has others."""
    public = {name for name in vars(transform) if not name.startswith("_")} - IMMATERIAL.get(type(transform), set())
    if public != known:
        raise UnknownTransformError(f"{type(transform).__name__} with parameters {sorted(public ^ known)}")


def _require(transform: BasicTransform, name: str, *allowed: Any) -> None:
    value = getattr(transform, name)
    if value not in allowed:
        raise UnknownTransformError(f"{type(transform).__name__} with {name} = {value!r}")


def _spatial(transform: SpatialTransform, labels: tuple[int, ...]) -> Spatial:
    _check_parameters(
        transform,
        {"patch_size", "patch_center_dist_from_border", "random_crop", "p_elastic_deform", "p_rotation", "rotation"}
        | {"p_rot_per_axis", "p_scaling", "scaling", "p_synchronize_scaling_across_axes", "mode_seg", "seg_tiebreak"}
        | {"border_mode_seg", "mode_image", "padding_mode_image", "padding_value_seg", "padding_value_image"}
        | {"align_corners"},
    )
    _require(transform, "p_elastic_deform", 0)
    _require(transform, "mode_seg", "bilinear")
    _require(transform, "mode_image", "bilinear")
    _require(transform, "seg_tiebreak", "nearest")
    _require(transform, "align_corners", False)
    _require(transform, "border_mode_seg", "zeros", "constant")
    _require(transform, "padding_mode_image", "zeros", "constant")
    return Spatial(
        patch=tuple(map(int, transform.patch_size)),
        border=tuple(map(float, transform.patch_center_dist_from_border)) if transform.random_crop else None,
        p_rotation=transform.p_rotation,
        rotation=known_scalar(transform.rotation, "rotation"),
        p_axis=transform.p_rot_per_axis,
        p_scaling=transform.p_scaling,
        scaling=known_scalar(transform.scaling, "scaling"),
        p_same_scale=transform.p_synchronize_scaling_across_axes,
        outside_image=float(transform.padding_value_image) if transform.padding_mode_image == "constant" else 0.0,
        outside_seg=int(transform.padding_value_seg) if transform.border_mode_seg == "constant" else 0,
        labels=labels,
    )


def _noise(transform: GaussianNoiseTransform) -> Twin:
    _check_parameters(transform, {"noise_variance", "p_per_channel", "synchronize_channels"})
    deviation = known_scalar(transform.noise_variance, "noise_variance")
    return GaussianNoise(deviation, transform.p_per_channel, transform.synchronize_channels)


def _blur(transform: GaussianBlurTransform) -> Twin:
    _check_parameters(transform, {"blur_sigma", "synchronize_channels", "synchronize_axes", "p_per_channel"})
    width = known_scalar(transform.blur_sigma, "blur_sigma")
    return GaussianBlur(width, transform.p_per_channel, transform.synchronize_channels, transform.synchronize_axes)


def _brightness(transform: MultiplicativeBrightnessTransform) -> Twin:
    _check_parameters(transform, {"multiplier_range", "synchronize_channels", "p_per_channel"})
    factor = known_scalar(transform.multiplier_range, "multiplier_range")
    return Brightness(factor, transform.p_per_channel, transform.synchronize_channels)


def _contrast(transform: ContrastTransform) -> Twin:
    _check_parameters(transform, {"contrast_range", "preserve_range", "synchronize_channels", "p_per_channel"})
    factor = known_scalar(transform.contrast_range, "contrast_range")
    return Contrast(factor, transform.p_per_channel, transform.synchronize_channels, transform.preserve_range)


def _low_resolution(transform: SimulateLowResolutionTransform) -> Twin:
    _check_parameters(
        transform,
        {"scale", "synchronize_channels", "synchronize_axes", "ignore_axes", "allowed_channels", "p_per_channel"},
    )
    return LowResolution(
        scale=known_scalar(transform.scale, "scale"),
        p_channel=transform.p_per_channel,
        synchronised=transform.synchronize_channels,
        same_axes=transform.synchronize_axes,
        kept_axes=tuple(transform.ignore_axes or ()),
        channels=None if transform.allowed_channels is None else tuple(transform.allowed_channels),
    )


def _gamma(transform: GammaTransform) -> Twin:
    _check_parameters(transform, {"gamma", "p_invert_image", "synchronize_channels", "p_per_channel", "p_retain_stats"})
    return Gamma(
        exponent=known_scalar(transform.gamma, "gamma"),
        p_channel=transform.p_per_channel,
        synchronised=transform.synchronize_channels,
        p_invert=transform.p_invert_image,
        p_keep_statistics=transform.p_retain_stats,
    )


def _mirror(transform: MirrorTransform) -> Twin:
    _check_parameters(transform, {"allowed_axes"})
    return Mirror(tuple(transform.allowed_axes))


def _mask(transform: MaskImageTransform) -> Twin:
    _check_parameters(transform, {"apply_to_channels", "channel_idx_in_seg", "set_outside_to"})
    return Mask(tuple(transform.apply_to_channels), transform.channel_idx_in_seg, transform.set_outside_to)


def _replace_label(transform: RemoveLabelTransform) -> Twin:
    _check_parameters(transform, {"segmentation_channels", "label_value", "set_to"})
    channels = transform.segmentation_channels
    return ReplaceLabel(transform.label_value, transform.set_to, None if channels is None else tuple(channels))


def _one_hot(transform: MoveSegAsOneHotToDataTransform) -> Twin:
    _check_parameters(transform, {"source_channel_idx", "all_labels", "remove_channel_from_source"})
    labels = tuple(transform.all_labels)
    if not all(isinstance(label, int) for label in labels):
        raise UnknownTransformError(f"MoveSegAsOneHotToDataTransform with all_labels = {labels}")
    return OneHot(transform.source_channel_idx, labels, transform.remove_channel_from_source)


def _morphology(transform: morphology.ApplyRandomBinaryOperatorTransform) -> Twin:
    _check_parameters(transform, {"channel_idx", "any_of_these", "strel_size", "p_per_label"})
    unknown = [operation for operation in transform.any_of_these if operation not in OPERATIONS]
    if unknown:
        raise UnknownTransformError(f"ApplyRandomBinaryOperatorTransform with {unknown[0]}")
    operations = tuple(OPERATIONS[operation] for operation in transform.any_of_these)
    radius = known_scalar(transform.strel_size, "strel_size")
    return Morphology(tuple(transform.channel_idx), operations, radius, transform.p_per_label)


def _remove_component(transform: RemoveRandomConnectedComponentFromOneHotEncodingTransform) -> Twin:
    largest = "dont_do_if_covers_more_than_x_percent"
    _check_parameters(transform, {"channel_idx", "fill_with_other_class_p", largest, "p_per_label"})
    _require(transform, "fill_with_other_class_p", 0)
    return RemoveComponent(tuple(transform.channel_idx), getattr(transform, largest), transform.p_per_label)


def _regions(transform: ConvertSegmentationToRegionsTransform) -> Twin:
    _check_parameters(transform, {"regions", "channel_in_seg"})
    return Regions(tuple(tuple(map(int, region)) for region in transform.regions), transform.channel_in_seg)


def _deep_supervision(transform: DownsampleSegForDSTransform) -> Twin:
    _check_parameters(transform, {"ds_scales"})
    if not all(isinstance(scale, (list, tuple)) for scale in transform.ds_scales):
        raise UnknownTransformError("DownsampleSegForDSTransform with one scale for all axes")
    return DeepSupervision(tuple(tuple(map(float, scale)) for scale in transform.ds_scales))


TRANSLATORS: dict[type[BasicTransform], Callable[[Any], Twin]] = {
    GaussianNoiseTransform: _noise,
    GaussianBlurTransform: _blur,
    MultiplicativeBrightnessTransform: _brightness,
    ContrastTransform: _contrast,
    SimulateLowResolutionTransform: _low_resolution,
    GammaTransform: _gamma,
    MirrorTransform: _mirror,
    MaskImageTransform: _mask,
    RemoveLabelTransform: _replace_label,
    MoveSegAsOneHotToDataTransform: _one_hot,
    morphology.ApplyRandomBinaryOperatorTransform: _morphology,
    RemoveRandomConnectedComponentFromOneHotEncodingTransform: _remove_component,
    ConvertSegmentationToRegionsTransform: _regions,
    DownsampleSegForDSTransform: _deep_supervision,
}
