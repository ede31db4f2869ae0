"""Options that several commands share, with nnU-Net's letters."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunetv2_slicemamba.common.names import DEFAULT_PLANS, DEFAULT_SUPERNET_TRAINER

Dataset = Annotated[str, typer.Option("-d", help="Dataset, by ID (501) or name (Dataset501_NAME).")]
Configuration = Annotated[str, typer.Option("-c", help="Configuration of the plans, e.g. 2d or 3d_fullres.")]
Fold = Annotated[str, typer.Option("-f", help="Fold: 0, 1, ... or all.")]
Plans = Annotated[str, typer.Option("-p", help="Plans' name, e.g. nnUNetSliceMambaSPlans.", show_default=True)]
SupernetTrainer = Annotated[str, typer.Option("-tr", help="Trainer of the supernet.", show_default=True)]
Device = Annotated[str, typer.Option("-device", help="cuda, cpu or mps; default: cuda where there is one.")]

PLANS = DEFAULT_PLANS
SUPERNET_TRAINER = DEFAULT_SUPERNET_TRAINER
