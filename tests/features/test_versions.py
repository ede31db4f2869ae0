"""An nnU-Net that this package does not work with is refused at import, with the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.version import require_nnunet


@pytest.mark.parametrize("version", ["2.7.0", "2.6.4", "1.7", "3.0.0", "10.1"])
def test_other_versions_are_refused_with_the_remedy(version: str) -> None:
    with pytest.raises(ImportError, match=rf"nnU-Net {version} is installed.*pip install 'nnunetv2>=2\.8,<3'"):
        require_nnunet(version)


@pytest.mark.parametrize("version", ["2.8", "2.8.0", "2.8.1", "2.8.1.post1", "2.9.0rc1", "2.10"])
def test_supported_versions_are_taken(version: str) -> None:
    require_nnunet(version)


def test_importing_the_package_asks(tmp_path: Path) -> None:
    metadata = tmp_path / "nnunetv2-2.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nnunetv2\nVersion: 2.5\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nnunetv2_slicemamba"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError: nnU-Net 2.5 is installed" in done.stderr
