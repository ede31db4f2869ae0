"""Configurations of all plans files of a dataset, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.hashing import resolved_configuration
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.names import NETWORK_CLASSES, NO_PLANS, class_name
from nnunetv2_slicemamba.common.nnunet_files import PLANS_JSON
from nnunetv2_slicemamba.planning.architecture import planned_candidates
from nnunetv2_slicemamba.planning.plans_name import require_same_name
from nnunetv2_slicemamba.planning.residual import planned_options
from nnunetv2_slicemamba.search.figures.stages import Stage, stages_of
from nnunetv2_slicemamba.slicing.candidates import Slicing

from .dataset import DatasetFolders

# others may lie there too
_ANYTHING = JsonKind("a JSON file", Any, f"{PLANS_JSON.remedy}, or move it away")


@dataclass(frozen=True)
class ConfigurationFacts:
    """A configuration of a plans file.

    network: class name. patch: voxels per axis. spacing: mm per axis. batch: patches. stages: of a SliceMamba network,
    highest resolution first; empty for other networks. preprocessed: whether its data are there. stem: channels of a
    hybrid's convolutional stages, full resolution first. activation_checkpointing: whether blocks are computed twice.
    options: of `slicemamba plan`, as far as the plans tell them.
    candidates: of the supernet, None for the paper's.
    """

    plans_name: str
    configuration: str
    planner: str
    network: str
    patch: tuple[int, ...]
    batch: int
    spacing: tuple[float, ...]
    widths: tuple[int, ...]
    normalization: tuple[str, ...]
    stages: tuple[Stage, ...]
    preprocessed: bool
    stem: tuple[int, ...] = ()
    activation_checkpointing: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    candidates: Slicing | None = None

    @property
    def is_slicemamba(self) -> bool:
        """True for plans of a SliceMamba network."""
        return self.network in NETWORK_CLASSES

    @property
    def n_blocks(self) -> int:
        """Blocks with a slicing."""
        return sum(stage.encoder_blocks + stage.decoder_blocks for stage in self.stages)


def read_plans(folders: DatasetFolders, wanted: Sequence[str] | None) -> tuple[ConfigurationFacts, ...]:
    """Every configuration of every plans file, of preprocessed data first, else of trained models.

    wanted: configurations to keep, None for all. SliceMamba's plans come first. Raises InputError for two files with
    different plans of one name.
    """
    files: dict[str, tuple[Mapping[str, Any], Path]] = {}
    for folder, name in _plans_files(folders):
        content = _ANYTHING.read(folder / name)
        if isinstance(content, Mapping) and "configurations" in content and "plans_name" in content:
            PLANS_JSON.check(content, folder / name)
            known, first = files.setdefault(str(content["plans_name"]), (content, folder / name))
            if folder == folders.preprocessed and known != content:
                for plans, file in ((known, first), (content, folder / name)):
                    require_same_name(plans, file)
    facts = []
    for plans_name, (plans, _) in files.items():
        for configuration in plans["configurations"]:
            settings = resolved_configuration(plans["configurations"], configuration)
            if "patch_size" in settings and (wanted is None or configuration in wanted):
                facts.append(_facts(plans_name, plans, configuration, settings, folders.preprocessed))
    return tuple(sorted(facts, key=lambda one: (not one.is_slicemamba, one.plans_name, one.configuration)))


def _plans_files(folders: DatasetFolders) -> list[tuple[Path, str]]:
    preprocessed = sorted(folders.preprocessed.glob("*.json")) if folders.preprocessed else []
    preprocessed = [file for file in preprocessed if file.stem not in NO_PLANS]
    trained = sorted(folders.results.glob("*/plans.json")) if folders.results else []
    return [(file.parent, file.name) for file in (*preprocessed, *trained)]


def _facts(
    plans_name: str,
    plans: Mapping[str, Any],
    configuration: str,
    settings: Mapping[str, Any],
    preprocessed: Path | None,
) -> ConfigurationFacts:
    # nnU-Net before 2.4 wrote the network's class elsewhere, and no kwargs
    architecture = settings.get("architecture", {})
    network = class_name(str(architecture.get("network_class_name") or settings.get("UNet_class_name") or "unknown"))
    kwargs = architecture.get("arch_kwargs", {})
    data = preprocessed / settings.get("data_identifier", "") if preprocessed else None
    return ConfigurationFacts(
        plans_name=plans_name,
        configuration=configuration,
        planner=str(plans.get("experiment_planner_used", "unknown")),
        network=network,
        patch=tuple(int(size) for size in settings["patch_size"]),
        batch=int(settings["batch_size"]),
        spacing=tuple(float(step) for step in settings["spacing"]),
        widths=tuple(int(width) for width in kwargs.get("features_per_stage", ())),
        normalization=tuple(settings.get("normalization_schemes", ())),
        stages=stages_of(kwargs) if network in NETWORK_CLASSES else (),
        preprocessed=data is not None and data.is_dir() and any(data.iterdir()),
        stem=tuple(int(width) for width in kwargs.get("stem_features", ())),
        activation_checkpointing=bool(kwargs.get("activation_checkpointing")),
        options=planned_options(plans),
        candidates=planned_candidates(kwargs) if kwargs.get("candidates") and network in NETWORK_CLASSES else None,
    )
