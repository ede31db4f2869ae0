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


def test_a_clone_that_is_the_working_directory_has_all_rooms(tmp_path: Path) -> None:
    # Python looks there first, also for a package that was installed from a wheel
    installed = Path(nnunetv2_slicemamba.common.__file__).parents[1]
    clone = tmp_path / "nnunetv2_slicemamba"
    clone.mkdir()
    for entry in installed.iterdir():
        if entry.name not in ("trainers", "search", "__init__.py"):
            (clone / entry.name).symlink_to(entry)
    # a link would be followed to the package that is installed
    (clone / "__init__.py").write_text((installed / "__init__.py").read_text(encoding="utf-8"), encoding="utf-8")
    for room in ("trainers", "search"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    code = "import nnunetv2_slicemamba.trainers as a, nnunetv2_slicemamba.search as b; print(a.__file__, b.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(tmp_path / room / "__init__.py") for room in ("trainers", "search")]
