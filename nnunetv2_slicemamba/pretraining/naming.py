"""Names of published weights: whose they are, and which of ours each stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from nnunetv2_slicemamba.common.safe_reading import names_in

Kind = Literal["slicemamba", "vmunet", "vmamba", "own"]
KINDS = ("slicemamba", "vmunet", "vmamba", "own")

WRAPPERS = ("model", "model_state_dict", "state_dict", "network_weights")
AVERAGES = ("model_ema", "state_dict_ema", "ema")
PREFIXES = {"module.": None, "smunet.": "slicemamba", "vmunet.": "vmunet"}

# first match wins; published stages hold the merging that leads out of them, ours the one that leads into them
RULES = (
    # VMamba since February 2024: a Sequential of convolution, permutation, norm
    (r"patch_embed\.0\.(.*)", r"encoder.patch_embedding.proj.\1"),
    (r"patch_embed\.2\.(.*)", r"encoder.patch_embedding.norm.\1"),
    (r"patch_embed\.(.*)", r"encoder.patch_embedding.\1"),
    (r"layers\.(\d+)\.downsample\.(.*)", "merge"),
    (r"layers\.(.*)", r"encoder.stages.\1"),
    (r"layers_up\.(.*)", r"decoder.stages.\1"),
    (r"final_up\.(.*)", r"decoder.final_mapping.\1"),
    (r"final_conv\.(.*)", "head"),
)
# `op` is what VMamba called self_attention later; its `norm` is ours already
PARTS = {".ln_1.": ".norm.", ".self_attention.": ".bss.", ".op.": ".bss.", ".conv2d.": ".conv."}
# our direction k is theirs[ORDER[k]]: (w, w reversed, h, h reversed) out of (w, h, w reversed, h reversed)
CROSS_SCAN_ORDER = (0, 2, 1, 3)
CROSS_SCANNED = ("vmunet", "vmamba")
PER_DIRECTION = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
BUFFERS = ("slicing", "architecture")
STEM = ("encoder.stem.", "decoder.stem.")
# the kernels that read the image: of a patch embedding, and of a hybrid's stem, which the library names twice
IMAGE_KERNELS = (
    "encoder.patch_embedding.proj.weight",
    "encoder.stem.stages.0.convs.0.conv.weight",
    "encoder.stem.stages.0.convs.0.all_modules.0.weight",
)
# what sits on a classifier's encoder
CLASSIFIER = re.compile(r"(classifier\.)?(norm|head)\.(weight|bias)")


@dataclass(frozen=True)
class Checkpoint:
    """Bare weights of a checkpoint, and what they are.

    weights: without wrappers and prefixes, under their own names. kind: whose; "own" is this package's. classifier: an
    encoder without a decoder. supernet: with several candidates at each block position.
    """

    weights: Mapping[str, Tensor]
    kind: Kind
    classifier: bool
    supernet: bool

    @property
    def n_dims(self) -> int | None:
        """Spatial axes, told from the kernels that read the image; None if there are none."""
        for name, value in self.weights.items():
            if self.our_name(name, "") in IMAGE_KERNELS:
                return value.ndim - 2
        return None

    @property
    def hybrid(self) -> bool:
        """True if it has a convolutional stem."""
        return self.kind == "own" and any(name.startswith(STEM) for name in self.weights)

    def our_name(self, name: str, last_head: str) -> str | None:
        """Our name of one of its weights, None if it has none. last_head: ours of the full resolution's head."""
        return name if self.kind == "own" else our_name(name, last_head)


def identify(state_dict: Mapping[str, object], kind: Kind | None = None, average: bool = False) -> Checkpoint:
    """The weights in a checkpoint, and whose they are as far as their names tell.

    kind: overrides that. average: take the moving average (EMA) that a training saved beside its weights; ValueError if
    there is none. Without a telling prefix a segmentation network is SliceMamba's and a classifier VMamba's:
    SliceMamba's own classifier has the same names as VMamba's, but another order of directions.
    """
    if average:
        averages = [state_dict[name] for name in AVERAGES if isinstance(state_dict.get(name), Mapping)]
        if not averages:
            raise ValueError(f"the checkpoint has no moving average, it has: {names_in(state_dict)}")
        state_dict = averages[0]  # type: ignore[assignment]
    weights, told = unwrap(state_dict)
    names = list(weights)
    own = any(name.startswith("encoder.") for name in names)
    segments = any(name.startswith(("layers_up.", "decoder.", "final_conv.")) for name in names)
    assumed: Kind = "own" if own else (told or ("slicemamba" if segments else "vmamba"))  # type: ignore[assignment]
    candidates = re.compile(r"(layers|encoder\.stages)\.\d+\.blocks\.\d+\.\d+\.")
    return Checkpoint(weights, kind or assumed, not segments, any(candidates.match(name) for name in names))


def unwrap(state_dict: Mapping[str, object]) -> tuple[dict[str, Tensor], str | None]:
    """The bare weights of a checkpoint, and the source that its prefix tells, if it does."""
    for wrapper in WRAPPERS:
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            return unwrap(inner)
    weights = {n: value for n, value in state_dict.items() if isinstance(n, str) and isinstance(value, Tensor)}
    told = None
    stripped = True
    while stripped and weights:
        stripped = False
        for prefix, source in PREFIXES.items():
            if all(name.startswith(prefix) for name in weights):
                weights = {name[len(prefix) :]: value for name, value in weights.items()}
                told, stripped = source or told, True
    return weights, told


def our_name(name: str, last_head: str) -> str | None:
    """Our name of a published weight, None if it has none."""
    for pattern, replacement in RULES:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if replacement == "merge":
            ours = f"encoder.stages.{int(match[1]) + 1}.downsample.{match[2]}"
        elif replacement == "head":
            ours = last_head + match[1]
        else:
            ours = match.expand(replacement)
        for theirs, part in PARTS.items():
            ours = ours.replace(theirs, part)
        return ours
    return None


def reorder_directions(value: Tensor) -> Tensor:
    """VMamba's per-direction weights in our order of directions; flattened (4E, ..) or stacked (4, ..) alike."""
    return value.unflatten(0, (4, -1))[list(CROSS_SCAN_ORDER)].flatten(0, 1)
