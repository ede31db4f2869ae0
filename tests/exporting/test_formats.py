"""An exported file computes what the network computes, in every format, and says so honestly."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.exporting.export import compare, export, require_place, write_record
from nnunetv2_slicemamba.exporting.fold_network import FoldNetwork
from nnunetv2_slicemamba.exporting.formats import FORMATS, Format
from nnunetv2_slicemamba.nets import SliceMambaUNet

HYBRID = {"stem_features": [4, 6], "skip": "concatenate"}


def source(sizes: tuple[int, ...], slicing: tuple[int, ...], tmp_path: Path, **options: Any) -> FoldNetwork:
    """A network with a slicing of its own, its scans' share in the output large, and two patches of odd sizes."""
    torch.manual_seed(0)
    dims = len(sizes)
    network = SliceMambaUNet(2, 3, 2, (8, 16), ((4,) * dims, (2,) * dims), (1, 1), (1, 1), **options).eval()
    network.set_slicing([slicing] * network.n_blocks)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("bss.out_proj.weight"):
                value.mul_(30)
    checkpoint = tmp_path / "checkpoint_final.pth"
    torch.save(network.state_dict(), checkpoint)
    return FoldNetwork(network, checkpoint, sha256_of_file(checkpoint), "case_1", torch.randn(2, 2, *sizes))


def skip_unless_possible(name: str) -> None:
    try:
        FORMATS[name].require()
    except InputError as missing:  # a package, or a newer PyTorch
        pytest.skip(str(missing))


CASES = {
    "2d": ((22, 29), (4, 2), {}),
    "2d-hybrid": ((22, 29), (4, 2), HYBRID),
    "3d": ((6, 9, 5), (2, 4, 2), {}),
    "3d-hybrid": ((6, 9, 5), (2, 4, 2), HYBRID),
}
QUICK = [("2d", name) for name in FORMATS] + [("2d-hybrid", "torchscript")]


@pytest.mark.parametrize(
    ("name", "sizes", "slicing", "options"),
    [
        pytest.param(name, *case, id=f"{kind}-{name}", marks=[] if (kind, name) in QUICK else [pytest.mark.slow])
        for kind, case in CASES.items()
        for name in FORMATS
    ],
)
def test_the_file_gives_the_networks_logits(
    name: str, sizes: tuple[int, ...], slicing: tuple[int, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    skip_unless_possible(name)
    network = source(sizes, slicing, tmp_path, **options)
    file = tmp_path / f"network{FORMATS[name].suffix}"
    parity = export(network, FORMATS[name], file)
    assert parity.relative_difference < 1e-5
    assert parity.holds
    assert parity.same_labels == 1
    assert parity.patches == 2
    record = json.loads(write_record(file, network, FORMATS[name], parity, fold=1).read_text())
    assert record["slicing"] == [list(slicing)] * network.network.n_blocks
    assert record["parity"]["holds"]
    assert record["input"] == [1, 2, *sizes]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_final.pth", file.name, f"{file.name}.json"}


def test_another_slicing_does_not_pass_the_parity_check(tmp_path: Path) -> None:
    network = source((22, 29), (4, 2), tmp_path)
    other = source((22, 29), (2, 4), tmp_path).network
    with torch.no_grad():
        parity = compare(network, other)
    assert not parity.holds
    assert parity.largest_difference > 0


def test_a_file_that_no_export_has_written_is_not_written_over(tmp_path: Path) -> None:
    """Neither is what lies where its record would; an export, also one that was killed, is."""
    network, file = source((22, 29), (4, 2), tmp_path), tmp_path / "network.ts"
    format = Format("of a test", ".ts", (), lambda net, example, to: to.write_bytes(b"net"), lambda _: network.network)

    def theirs(name: str) -> None:
        with pytest.raises(InputError, match=rf"-o {tmp_path / name} .*was not written by this command: it would"):
            require_place(file, ".ts")

    require_place(file, ".ts")
    file.write_bytes(b"a network of my own")
    theirs("network.ts")
    (tmp_path / "network.ts.json").write_text('{"mine": 1}')
    theirs("network.ts.json")
    file.unlink()
    theirs("network.ts.json")
    (tmp_path / "network.ts.json").unlink()
    for before in (0, 3):
        parity = export(network, format, file)
        written = json.loads((tmp_path / "network.ts.json").read_text())
        assert (written["bytes"], written["bytes_before"]) == (3, before)
        require_place(file, ".ts")  # killed before the record is whole
    (tmp_path / "network.ts.json").write_text(json.dumps({**written, "bytes": 5}))
    require_place(file, ".ts")  # killed between the new record and the new file
    write_record(file, network, format, parity)
    require_place(file, ".ts")
    file.write_bytes(b"a network of my own")
    theirs("network.ts")


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    network = source((22, 29), (4, 2), tmp_path)
    broken = replace(network, network=torch.nn.Identity(), patches=network.patches[:, :, :0])  # type: ignore[arg-type]
    broken.network.forward = None  # type: ignore[method-assign]
    with pytest.raises(TypeError):
        export(broken, FORMATS["torchscript"], tmp_path / "network.ts")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_final.pth"]


def test_a_missing_package_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install onnx onnxscript onnxruntime"):
        FORMATS["onnx"].require()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("name", ["torchscript", "pt2"])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(name: str) -> None:
    """PyTorch's writer of archives aborts where it cannot write."""
    skip_unless_possible(name)
    code = f"""
import torch
from pathlib import Path
from nnunetv2_slicemamba.exporting.formats import FORMATS
try:
    FORMATS["{name}"].write(torch.nn.Linear(2, 3), torch.zeros(1, 2), Path("/dev/full"))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "No space left on device\n")
