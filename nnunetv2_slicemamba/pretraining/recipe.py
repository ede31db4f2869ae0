"""VMamba's published recipe of ImageNet training, every value with its place in github.com/MzeroMiko/VMamba."""

from __future__ import annotations

from dataclasses import dataclass

from nnunetv2_slicemamba.common.folders import InputError

PRECISIONS = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Recipe:
    """Settings of the training; the defaults are VMamba's. A comment names each one's place below classification/.

    Learning rates hold for 512 images a step and are scaled to the actual number, as there. epochs are of the training
    set. image_size in pixels. batch_size per process; accumulate: batches per step. Rates and probabilities in 0 .. 1.
    Raises InputError naming the value and the rule.
    """

    epochs: int = 300  # config.py: TRAIN.EPOCHS = 300
    warmup_epochs: int = 20  # config.py: TRAIN.WARMUP_EPOCHS = 20
    batch_size: int = 128  # README.md: --nproc_per_node=8 --batch-size 128
    accumulate: int = 1  # config.py: TRAIN.ACCUMULATION_STEPS = 1
    image_size: int = 224  # config.py: DATA.IMG_SIZE = 224
    learning_rate: float = 5e-4  # config.py: TRAIN.BASE_LR = 5e-4; main.py: scaled by images a step / 512
    warmup_learning_rate: float = 5e-7  # config.py: TRAIN.WARMUP_LR = 5e-7; main.py: scaled likewise
    least_learning_rate: float = 5e-6  # config.py: TRAIN.MIN_LR = 5e-6; main.py: scaled likewise
    weight_decay: float = 0.05  # config.py: TRAIN.WEIGHT_DECAY = 0.05; utils/optimizer.py: none on 1D and bias
    betas: tuple[float, float] = (0.9, 0.999)  # config.py: TRAIN.OPTIMIZER.NAME = 'adamw', BETAS = (0.9, 0.999)
    epsilon: float = 1e-8  # config.py: TRAIN.OPTIMIZER.EPS = 1e-8
    clip_norm: float = 5.0  # config.py: TRAIN.CLIP_GRAD = 5.0
    drop_path: float = 0.2  # configs/vssm/vmambav0_tiny_224.yaml: DROP_PATH_RATE: 0.2
    label_smoothing: float = 0.1  # config.py: MODEL.LABEL_SMOOTHING = 0.1
    mixup: float = 0.8  # config.py: AUG.MIXUP = 0.8
    cutmix: float = 1.0  # config.py: AUG.CUTMIX = 1.0
    mix_probability: float = 1.0  # config.py: AUG.MIXUP_PROB = 1.0, MIXUP_MODE = 'batch'
    cutmix_probability: float = 0.5  # config.py: AUG.MIXUP_SWITCH_PROB = 0.5
    random_augment: str = "rand-m9-mstd0.5-inc1"  # config.py: AUG.AUTO_AUGMENT = 'rand-m9-mstd0.5-inc1'
    color_jitter: float = 0.4  # config.py: AUG.COLOR_JITTER = 0.4
    erase_probability: float = 0.25  # config.py: AUG.REPROB = 0.25, REMODE = 'pixel', RECOUNT = 1
    interpolation: str = "bicubic"  # config.py: DATA.INTERPOLATION = 'bicubic'
    crop_fraction: float = 0.875  # data/build.py: resized to 256 / 224 of the size, then cropped
    average_decay: float = 0.9999  # main.py: --model_ema_decay 0.9999
    precision: str = "fp16"  # config.py: AMP_ENABLE = True, that is float16
    seed: int = 0  # config.py: SEED = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "image_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, it must be at least 1")
        for name in ("learning_rate", "epsilon", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}, it must be above 0")
        if not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path is {self.drop_path}, it must be at least 0 and below 1; 0.2 is usual")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                f"warmup_epochs is {self.warmup_epochs}, it must be from 0 to epochs - 1, which is {self.epochs - 1}"
            )
        if self.mixes and self.batch_size % 2:
            raise InputError(f"batch_size is {self.batch_size}, but mixup pairs images: give an even number")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}, it must be one of {', '.join(PRECISIONS)}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed is {self.seed}, it must be a whole number from 0 to 2147483647")

    @property
    def mixes(self) -> bool:
        """True if images are mixed, so that targets are soft."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)
