"""SliceMamba and its architecture search as an extension of nnU-Net v2."""

from pathlib import Path
from typing import TYPE_CHECKING

# In a clone, which Python finds first if it is the working directory, trainers/ and search/ lie beside the package.
if not (_folder := Path(__file__).parent).joinpath("trainers").is_dir():
    __path__.append(str(_folder.parent))

from nnunetv2_slicemamba.common.version import __version__, require_nnunet

if TYPE_CHECKING:
    from nnunetv2_slicemamba.planning.presets import slicemamba_unet
else:

    def __getattr__(name):
        # PyTorch takes seconds to import, which commands that need no network do not wait for
        if name != "slicemamba_unet":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from nnunetv2_slicemamba.planning.presets import slicemamba_unet

        return slicemamba_unet


__all__ = ["__version__", "slicemamba_unet"]

require_nnunet()
