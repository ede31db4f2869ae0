"""Checkpoints are read as data: nothing in them is run, and what is wrong with one is said with the file's name."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from nnunetv2_slicemamba.common import commands
from nnunetv2_slicemamba.common.checkpoints import FORCE_SAFE, CheckpointError, read_training
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.safe_reading import check_array_pickle, read_checkpoint, read_plain_pickle
from nnunetv2_slicemamba.common.watch import Watch
from tests.common.malicious import checkpoint_with, malicious_files, touching
from tests.conftest import REPOSITORY

GOOD = {
    "network_weights": {"weight": torch.arange(4000.0), "slicing": torch.full((7, 2), 2, dtype=torch.uint8)},
    "logging": {"mean_fg_dice": [np.float64(0.1), np.float32(0.2), np.int64(3), np.bool_(True)]},
    "init_args": {"device": torch.device("cuda"), "plans": {"a": [1, None, "x"]}},
    "_best_ema": np.float64(0.25),
}
REMEDY = "train it anew"


def unsafe(path: Path) -> None:
    """Reads as nnU-Net and others do."""
    for read in (
        lambda: torch.load(path, weights_only=False),
        lambda: pickle.loads(path.read_bytes()),
        lambda: np.load(path, allow_pickle=True)["data"],
    ):
        with contextlib.suppress(Exception):
            read()


READERS: dict[str, Callable[[Path], Any]] = {
    "training": lambda path: read_training(path, REMEDY),
    "training's log": lambda path: read_training(path, REMEDY, tensors=False),
    "foreign": read_checkpoint,
    "plain pickle": read_plain_pickle,
    "case": lambda path: check_array_pickle(path, REMEDY),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_runs_what_a_file_says(tmp_path: Path, reader: str) -> None:
    marker = tmp_path / "marker"
    files = list(malicious_files(tmp_path, marker))
    assert len(files) >= 33
    for name, path in files:
        with pytest.raises(InputError, match=re.escape(str(path))):
            READERS[reader](path)
        assert not marker.exists(), name


@pytest.mark.filterwarnings("ignore")
def test_those_files_do_run_where_a_reader_is_not_careful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCE_SAFE, "0")  # a trainer of another test may have set it
    marker = tmp_path / "marker"
    did_not = []
    for name, path in malicious_files(tmp_path, marker):
        unsafe(path)
        if not marker.exists():
            did_not.append(name)
        marker.unlink(missing_ok=True)
    # other readers of PyTorch know better
    assert did_not == ["tar of PyTorch before 0.4", "TorchScript"]


def test_a_checkpoint_of_nnunet_is_read_with_every_type_as_it_was(tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "a.pth")
    for tensors in (True, False):
        found = read_training(tmp_path / "a.pth", REMEDY, tensors)
        assert found["logging"] == GOOD["logging"]
        dice = found["logging"]["mean_fg_dice"]
        assert [type(v) for v in dice] == [np.float64, np.float32, np.int64, np.bool_]
        assert found["init_args"] == GOOD["init_args"]
        assert torch.equal(found["network_weights"]["weight"], GOOD["network_weights"]["weight"])


def test_what_other_code_has_allowed_stays_allowed_for_it_alone(tmp_path: Path) -> None:
    from torch import serialization

    path = tmp_path / "a.pth"
    torch.save(GOOD, tmp_path / "good.pth")
    before = serialization.get_safe_globals()
    try:
        serialization.clear_safe_globals()
        serialization.add_safe_globals([partial])
        torch.save(partial(int), path)
        with pytest.raises(InputError, match="it names functools.partial"):
            read_checkpoint(path)
        read_training(tmp_path / "good.pth", REMEDY)
        assert serialization.get_safe_globals() == [partial]
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def test_numbers_of_an_older_numpy_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    text = pickle.dumps(np.float64(0.75), protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in text
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", text)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    assert read_checkpoint(path) == 0.75


def flipped(path: Path, where: bytes, offset: int = 0) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(where) + offset
    for i in range(at, at + 4):
        content[i] ^= 255
    path.write_bytes(content)


def rewritten(path: Path, **changes: Any) -> None:
    """Writes the archive anew with zipfile, which torch.save's own writer could not do."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", **changes) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def in_header(path: Path, name: bytes, size: int) -> None:
    """Makes the archive's list claim another size of an entry, as a bomb does."""
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(name))
    content[at + 20 : at + 28] = struct.pack("<II", size, size)
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "there is no file"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:9000]), "its end is missing or damaged"),
    "cut in the first bytes": (lambda p: p.write_bytes(p.read_bytes()[:3]), "is not read|cannot be read"),
    "flipped weights": (lambda p: flipped(p, struct.pack("<f", 2000.0)), r"its entry 'a/data/0' was changed"),
    "flipped pickle": (lambda p: flipped(p, b"init_args"), r"its entry 'a/data.pkl' was changed"),
    "flipped list": (lambda p: flipped(p, b"PK\x01\x02"), "its end is missing or damaged"),
    "text": (lambda p: p.write_text("no checkpoint"), "is not read|cannot be read"),
    "zeros": (lambda p: p.write_bytes(bytes(5000)), "is not read|cannot be read"),
    "compressed": (lambda p: rewritten(p, compression=zipfile.ZIP_DEFLATED), "is compressed, from .* bytes to"),
    "claims gigabytes": (lambda p: in_header(p, b"data/0", 2**31), r"claim \d+ bytes, the file has \d+"),
    "a list": (lambda p: torch.save([1, 2], p), "holds a list, not a checkpoint"),
    "no weights": (lambda p: torch.save({"model": {}, 3: 4}, p), "has no network_weights, but model, 3"),
    "weights of text": (lambda p: torch.save({"network_weights": {"a": "b"}}, p), "hold a str where tensors belong"),
    "repeated number": (
        lambda p: torch.save({"network_weights": {"a": torch.zeros(1).expand(10**12)}}, p),
        r"its tensor a has 1000000000000 numbers in 4 bytes",
    ),
    "sparse": (
        lambda p: torch.save({"network_weights": {"a": torch.zeros(2, 2).to_sparse()}}, p),
        "its tensor a is not a plain one",
    ),
    "NaN": (
        lambda p: torch.save({"network_weights": {"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])}}, p),
        "1 of its 2 tensors hold NaN or infinity, the first is b",
    ),
    "infinite": (lambda p: torch.save({"network_weights": {"a": torch.tensor(-torch.inf)}}, p), "NaN or infinity"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name_with_what_is_wrong_and_the_remedy(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(GOOD, path)
    change, words = DAMAGE[damage]
    change(path)
    with pytest.raises(CheckpointError, match=words) as refused:
        read_training(path, REMEDY)
    assert str(path) in str(refused.value)
    if damage != "missing":
        assert str(refused.value).endswith(REMEDY)


def test_any_four_flipped_bytes_are_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(GOOD, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for at in rng.integers(0, len(whole) - 4, 200):
        content = bytearray(whole)
        content[at : at + 4] = bytes(255 ^ byte for byte in content[at : at + 4])
        path.write_bytes(content)
        try:
            found = read_training(path, REMEDY)
        except CheckpointError:
            noticed += 1
        else:  # padding between entries
            assert found["logging"] == GOOD["logging"]
            assert all(torch.equal(found["network_weights"][k], v) for k, v in GOOD["network_weights"].items())
    assert noticed > 150


def test_a_log_is_read_from_a_checkpoint_whose_weights_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({**GOOD, "network_weights": {"a": torch.tensor(torch.nan)}}, path)
    assert read_training(path, REMEDY, tensors=False)["logging"] == GOOD["logging"]


def test_files_without_checksums_and_of_the_old_format_still_load(tmp_path: Path) -> None:
    from torch import serialization

    serialization.set_crc32_options(False)
    try:
        torch.save(GOOD, tmp_path / "a.pth")
    finally:
        serialization.set_crc32_options(True)
    torch.save(GOOD, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.pth"):
        for tensors in (True, False):
            assert read_training(tmp_path / name, REMEDY, tensors)["logging"] == GOOD["logging"]


@pytest.mark.parametrize("reader", [read_plain_pickle, lambda path: check_array_pickle(path, REMEDY)])
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]r\xff\xff\xff\x7f.",  # the memo of Python's reader would take 32 GB
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"ab.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"].",
        b"\x80\x04",
        b"",
    ],
    ids=["memo", "bytes", "frame", "no end", "empty"],
)
def test_a_pickle_that_claims_much_takes_no_memory(tmp_path: Path, reader: Any, content: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.pkl"):
        reader(tmp_path / "a.pkl")


def test_what_nnunet_keeps_of_a_case_passes(tmp_path: Path) -> None:
    from collections import OrderedDict

    properties = {
        "sitk_stuff": {"spacing": (1.0, 1.0), "origin": (0.0,), "direction": (1.0,)},
        "spacing": [999.0, np.float64(1.0)],
        "bbox_used_for_cropping": [[0, 1], (0, np.int64(32))],
        "class_locations": OrderedDict({1: np.arange(40).reshape(10, 4), (1, 2): np.zeros((0, 4), np.int64)}),
        "nibabel_stuff": {"original_affine": np.asfortranarray(np.eye(4))},
        "regions": {1, 2},
        "crop": slice(0, 3),
    }
    for protocol in (3, 4, 5):
        (tmp_path / "case.pkl").write_bytes(pickle.dumps(properties, protocol=protocol))
        check_array_pickle(tmp_path / "case.pkl", REMEDY)


def entry() -> None:
    """Stands for a command of nnU-Net: unpickles the files that it is given."""
    for file in sys.argv[1:]:
        torch.load(file, weights_only=False)
        print("read", file)


def test_a_command_of_nnunet_that_we_start_runs_nothing_that_a_checkpoint_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    bad, good = tmp_path / "bad.pth", tmp_path / "good.pth"
    torch.save(checkpoint_with(touching(marker), "init_args"), bad)
    torch.save(GOOD, good)
    monkeypatch.setitem(commands.ENTRY_POINTS, "nnUNetv2_predict", ("tests.common.test_checkpoints", "entry"))
    monkeypatch.delenv(FORCE_SAFE, raising=False)
    console = Console(record=True, quiet=False, width=400, file=io.StringIO())
    with pytest.raises(commands.CommandError):
        commands.run_command("nnUNetv2_predict", [str(good), str(bad)], console, watch=Watch(console))
    output = console.export_text()
    assert f"read {good}" in output
    assert "posix.system" in output
    assert not marker.exists()


def test_files_are_unpickled_in_one_place_alone() -> None:
    unpickling = re.compile(r"\btorch\.load\(|\bpickle\.loads?\(|\bload_pickle\(|allow_pickle=True|Unpickler\(")
    folders = [REPOSITORY / name for name in ("nnunetv2_slicemamba", "trainers", "search")]
    files = {file.resolve() for folder in folders for file in folder.rglob("*.py")}
    assert len(files) > 200
    found = {file.relative_to(REPOSITORY).as_posix() for file in files if unpickling.search(file.read_text("utf-8"))}
    assert found == {"nnunetv2_slicemamba/common/safe_reading.py"}
