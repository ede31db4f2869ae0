"""Settings of the trainers' variants, by the end of a variant's name, and a variable; nothing slow is imported."""

from __future__ import annotations

from typing import Any

# environment variable: the trainer of the previous stage, for 3d_cascade_fullres
PREVIOUS_STAGE_VARIABLE = "SLICEMAMBA_PREVIOUS_STAGE"

SETTINGS: dict[str, dict[str, Any]] = {
    "NoDeepSupervision": {"deep_supervision": False},
    **{f"_{n}epochs": {"epochs": n} for n in (5, 10, 20, 50, 100, 250, 500)},
    # one short epoch, for tests of a pipeline
    "_1epoch": {"epochs": 1, "iterations_per_epoch": 20, "validation_iterations": 2},
    # minutes on a CPU, for `slicemamba demo`
    "_demo": {"epochs": 6, "iterations_per_epoch": 50, "validation_iterations": 4},
    # the hippocampus fills a small part of its crops: it is found after some 500 iterations
    "_demo3d": {"epochs": 16, "iterations_per_epoch": 50, "validation_iterations": 4},
}
SUPERNET_SETTINGS = {
    **SETTINGS,
    "_demo": {**SETTINGS["_demo"], "epochs": 3},
    "_demo3d": {**SETTINGS["_demo3d"], "epochs": 12},
}
FEWEST_EPOCHS = 5
_EPOCHS = 1000  # of trainers without a suffix


def tenth_of(trainer: str) -> str:
    """Name of the trainer from scratch with a tenth of a final trainer's epochs.

    Rounded down to a length that there is, and not below FEWEST_EPOCHS. Trainers with short epochs stand for
    themselves.
    """
    suffix = next((one for one in SETTINGS if trainer.endswith(one)), "")
    settings = SETTINGS.get(suffix, {})
    if "iterations_per_epoch" in settings:
        return f"SliceMambaTrainer{suffix}"
    most = max(settings.get("epochs", _EPOCHS) // 10, FEWEST_EPOCHS)
    lengths = [own["epochs"] for own in SETTINGS.values() if "epochs" in own and "iterations_per_epoch" not in own]
    return f"SliceMambaTrainer_{max(length for length in lengths if length <= most)}epochs"
