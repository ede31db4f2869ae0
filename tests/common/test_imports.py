"""Every module of `common` can be imported at no cost and without PyTorch or nnU-Net."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nnunetv2_slicemamba.common


def test_common_imports_neither_torch_nor_nnunet_nor_any_other_room() -> None:
    folder = Path(nnunetv2_slicemamba.common.__file__).parent
    modules = [f"nnunetv2_slicemamba.common.{file.stem}" for file in folder.glob("[a-z]*.py")]
    assert len(modules) > 8
    code = (
        f"import sys, {', '.join(modules)}\n"
        "ours = {'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('nnunetv2_slicemamba.')}\n"
        "print(sorted(ours), [name for name in ('torch', 'nnunetv2', 'scipy') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['nnunetv2_slicemamba.common'] []"
