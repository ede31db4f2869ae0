"""`slicemamba pretrain`: from images and plans to a file for `-pretrained_weights`."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from nnunetv2_slicemamba.common.folder_lock import in_use, require_unused
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_files import plain_json
from nnunetv2_slicemamba.common.provenance import installed_versions, now
from nnunetv2_slicemamba.common.stopping import noticing_signals
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.pretraining.classifier import SliceMambaClassifier, check_image_size
from nnunetv2_slicemamba.pretraining.images import Images, Loading, Shards, find_images, reseed
from nnunetv2_slicemamba.pretraining.importing import import_weights
from nnunetv2_slicemamba.pretraining.naming import identify
from nnunetv2_slicemamba.pretraining.processes import Processes, processes
from nnunetv2_slicemamba.pretraining.recipe import Recipe
from nnunetv2_slicemamba.pretraining.training import Saving, Stopped, Training
from nnunetv2_slicemamba.pretraining.training_log import LOG_FILE, LOGS, TrainingLog
from nnunetv2_slicemamba.pretraining.training_state import BEST, LATEST
from nnunetv2_slicemamba.pretraining.weights_file import (
    choose,
    planned_network,
    require_patch_embedding,
    require_target,
    write_weights,
)
from nnunetv2_slicemamba.slicing.choice import SlicingChoice


@dataclass(frozen=True)
class PretrainRequest:
    """Settings of a pretraining.

    images: the folder, shards: in it, or None. target: the weights' file. output: the training's folder, None: beside.
    slicing: as `slicing --set`, or "fold". trainer: the supernet trainer whose searches "consensus" reads.
    save_seconds: from one checkpoint to the next, look_every: steps from one look at clock and signals to the next.
    discard: begin anew.
    """

    images: Path
    target: Path
    recipe: Recipe
    slicing: str
    shards: Shards | None = None
    output: Path | None = None
    trainer: str = "SliceMambaSupernetTrainer"
    device: str = "auto"
    workers: int = 8
    save_seconds: float = 600.0
    look_every: int = 50
    discard: bool = False

    @property
    def folder(self) -> Path:
        """Folder of checkpoints and logs."""
        return self.output or self.target.with_name(f"{self.target.stem}_pretraining")


@dataclass(frozen=True)
class Pretrained:
    """Outcome of a pretraining. best: epoch, top-1 in % and which weights. finished: False if a signal stopped it."""

    best: dict[str, Any]
    step: int
    total: int
    finished: bool
    first_process: bool


def pretrain(selection: Selection, request: PretrainRequest, console: Console) -> Pretrained:
    """Pretrains the encoder of a selection's network, or goes on doing so.

    Raises InputError for what cannot be worked with, and FolderInUseError while another pretraining works in the
    folder, before anything is written.
    """
    require_timm()
    require_patch_embedding(selection)
    if selection.n_dims != 2:
        raise InputError(
            f"{selection.configuration} is 3D and images are 2D; pretrain a 2D configuration and give its weights to "
            "'slicemamba import ... --inflate mean'"
        )
    check_image_size(request.recipe.image_size, selection.arch_kwargs)
    require_target(request.target)
    choice = choose(SupernetFolder(selection, request.trainer), request.slicing)
    images = find_images(request.images, request.shards)
    with processes(request.device) as process:
        recipe = with_possible_precision(request.recipe, process)
        return _train(selection, replace(request, recipe=recipe), choice, images, process, console)


def _discard(folder: Path) -> None:
    """Deletes what a training has written, and nothing else: the folder may be anybody's."""
    for name in (LATEST, BEST, LOG_FILE):
        (folder / name).unlink(missing_ok=True)
    for file in (folder / LOGS).glob("events.out.*"):
        file.unlink()


def _train(
    selection: Selection,
    request: PretrainRequest,
    choice: SlicingChoice,
    images: Images,
    process: Processes,
    console: Console,
) -> Pretrained:
    recipe, folder = request.recipe, request.folder
    loading = Loading(images, recipe, process, request.workers)
    if process.first:
        require_unused(folder)
    if request.discard and process.first:
        _discard(folder)
    process.wait()
    reseed(3, recipe.seed)
    network = SliceMambaClassifier(images.classes, selection.arch_kwargs, choice.slicing, recipe.drop_path)
    training = Training(network, recipe, images.classes, loading, process)
    saving = Saving(
        folder,
        identity_of(selection, recipe, choice, images, loading.images_per_step),
        request.save_seconds,
        request.look_every,
    )
    restored = training.state.restore(folder, saving.identity, process.device)
    if process.first:
        about = f"from step {training.state.step}" if restored else "from the start"
        console.print(
            f"{images.n_train} training and {images.n_validation} validation images of {images.classes} classes; "
            f"{training.total} steps of {loading.images_per_step} images on {process.world} x {process.device.type}, "
            f"{recipe.precision}, {about}. Checkpoints and log: {folder}",
            soft_wrap=True,
            highlight=False,
        )

    def write(best: nn.Module) -> None:
        write_pretrained(selection, request, choice, images, best, training.state.best)

    finished = True
    with (
        in_use(folder) if process.first else nullcontext(),
        TrainingLog(
            folder, training.total, training.state.step, training.state.validated, console, process.first
        ) as log,
        noticing_signals() as seen,
    ):
        try:
            training.run(log, saving, seen, write)
        except Stopped:
            finished = False
    return Pretrained(training.state.best, training.state.step, training.total, finished, process.first)


def write_pretrained(
    selection: Selection,
    request: PretrainRequest,
    choice: SlicingChoice,
    images: Images,
    classifier: nn.Module,
    best: dict[str, Any],
) -> None:
    """Writes encoder, decoder mirrored from it, and the slicing trained with, for `-pretrained_weights`."""
    network = planned_network(selection)
    weights = {name: value.detach().cpu() for name, value in classifier.state_dict().items()}
    imported = import_weights(identify(weights, "own"), network)
    record = {
        "what": "weights for nnUNetv2_train -pretrained_weights, pretrained by nnunetv2_slicemamba",
        "images": {"classes": images.classes, "training": images.n_train, "validation": images.n_validation},
        "best": best,
        "recipe": asdict(request.recipe),
        "dataset": selection.dataset,
        "configuration": selection.configuration,
        "plans_name": selection.plans_name,
        "slicing": choice.slicing,
        "slicing_origin": choice.how_chosen,
        "loaded": [asdict(e) for e in imported.entries if not e.changes],
        "adapted": [asdict(e) for e in imported.entries if e.changes],
        "initialised": imported.initialised,
        "versions": {**installed_versions(), "timm": require_timm()},
        "created": now(),
    }
    write_weights(request.target, imported.state_dict, record)


def identity_of(
    selection: Selection, recipe: Recipe, choice: SlicingChoice, images: Images, images_per_step: int
) -> dict[str, Any]:
    """Settings that two runs must share to be one training; how many processes share a step is not among them."""
    changing = ("batch_size", "accumulate")
    return {
        **{key: value for key, value in asdict(recipe).items() if key not in changing},
        "betas": list(recipe.betas),
        "images_per_step": images_per_step,
        "training_images": images.n_train,
        "validation_images": images.n_validation,
        "classes": images.classes,
        "slicing": plain_json(choice.slicing),
        "architecture": {key: value for key, value in selection.arch_kwargs.items() if key != "drop_path_rate"},
    }


def with_possible_precision(recipe: Recipe, process: Processes) -> Recipe:
    """The recipe with a precision that the device has: fp16 becomes fp32 without a GPU, as in nnU-Net."""
    if recipe.precision == "fp16" and process.device.type != "cuda":
        return replace(recipe, precision="fp32")
    if recipe.precision == "bf16" and process.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bfloat16; give --precision fp16")
    return recipe


def require_timm() -> str:
    """timm's version; InputError without it."""
    try:
        with warnings.catch_warnings():
            # of a model that nothing here uses, about PyTorch's TorchScript
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit")
            import timm
    except ImportError as error:
        raise InputError("pretraining needs timm, which is not installed: pip install timm") from error
    return str(timm.__version__)
