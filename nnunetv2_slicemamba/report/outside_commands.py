"""Commands before planning and after training: the conversion of a dataset, and predictions of its test cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.shell import comment, shell_line
from nnunetv2_slicemamba.datasets.manifest import MANIFEST

from .dataset import DatasetFolders
from .models import Model
from .paper import TestSet

_MANIFEST = JsonKind("the manifest of a conversion", {"request": dict}, "Convert the dataset again")
# options that have these values unless they are given
_USUAL = {"train": "joint", "organs": 8}


def conversion_command(folders: DatasetFolders) -> list[str]:
    """The command that converted the dataset, as its manifest tells; empty without one. Of paths, the last part."""
    file = folders.raw / MANIFEST if folders.raw else None
    if file is None or not _MANIFEST.is_readable(file):
        return []
    request: dict[str, Any] = _MANIFEST.read(file)["request"]
    words: list[Any] = ["slicemamba", "convert", request.get("key", "NAME")]
    words += _own_folders(request) if request.get("key") == "folders" else _last_parts(request.get("sources"))
    words += ["-d", folders.number]
    words += ["--name", request["name"]] if request.get("name") else []
    words += ["--labels", ",".join(map(str, request["labels"]))] if request.get("labels") else []
    words += ["--resize", *request["resize"]] if request.get("resize") else []
    words += [word for name, usual in _USUAL.items() if request.get(name, usual) != usual
              for word in (f"--{name}", request[name])]  # fmt: skip
    words += _split(request.get("split"))
    return [shell_line(*words)]


def _last_parts(paths: Any) -> list[str]:
    return [Path(str(path)).name for path in paths or ()]


def _own_folders(request: dict[str, Any]) -> list[str]:
    """The options of `convert folders` that name folders and channels."""
    *images, masks = _last_parts(request.get("sources")) or ["MASKS"]
    test = _last_parts(request.get("test_images"))
    words = [word for folder in images for word in ("--images", folder)] + ["--masks", masks]
    words += [word for folder in test for word in ("--test-images", folder)]
    words += ["--test-masks", Path(str(request["test_masks"])).name] if request.get("test_masks") else []
    return words + (["--channels", ",".join(map(str, request["channels"]))] if request.get("channels") else [])


def _split(split: Any) -> list[str]:
    """The option --split; none for the usual one."""
    kind = str(split.get("kind", "published")) if isinstance(split, dict) else "published"
    if kind == "published":
        return []
    share = f":{split.get('fraction', 0)}" if kind == "holdout" else ""
    return ["--split", kind if kind == "none" else f"{kind}{share}:{split.get('seed', 0)}"]


def prediction_commands(
    folders: DatasetFolders, models: Sequence[Model], test_set: TestSet, truth: Path | None, images: Path | None
) -> list[str]:
    """The commands that predicted, judged and reported test cases, as far as anything tells.

    nnU-Net writes down plans and images of a prediction, not its trainer and folds: those of the only network that was
    trained with these plans, or none.
    """
    lines = []
    trained = [m for m in models if not m.is_supernet and m.plans_name == test_set.plans_name]
    trained = [m for m in trained if any(fold.training for fold in m.folds)]
    if len(trained) == 1:
        (model,) = trained
        folds = [fold.name for fold in model.folds if fold.training]
        source = test_set.source
        given = "imagesTs" if source is None else source.name
        usual = source is None or (source.parent.name, source.name) == (folders.name, "imagesTs")
        inputs = f'"$nnUNet_raw"/{folders.name}/imagesTs' if usual else shell_line(given)
        network = ("-c", model.configuration, "-tr", model.trainer, "-p", model.plans_name, "-f", *folds)
        command = f"nnUNetv2_predict -d {folders.number} -i {inputs} "
        lines.append(command + shell_line("-o", test_set.name, *network))
    elif trained:
        lines.append(comment(f"made with one of {', '.join(model.identifier for model in trained)}"))
    own_truth = f'"$nnUNet_raw"/{folders.name}/labelsTs' if truth is None else shell_line(truth.name)
    lines.append(f"{shell_line('slicemamba', 'evaluate', test_set.name)} {own_truth}")
    flags = ["--predictions", test_set.name]
    flags += ["--truth", truth.name] if truth else []
    flags += ["--images", images.name] if images else []
    lines.append(shell_line("slicemamba", "report", "-d", folders.number, *flags))
    return lines
