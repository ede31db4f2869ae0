"""A pipe or a device in a file's place is refused at once: reading it would never end, and writing would remove it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.common.json_reading import JsonKind
from nnunetv2_slicemamba.common.outputs import require_output
from nnunetv2_slicemamba.common.safe_reading import check_array_pickle, read_checkpoint
from nnunetv2_slicemamba.datasets.pairing import image_files
from nnunetv2_slicemamba.datasets.source_files import files_below
from nnunetv2_slicemamba.planning.raw_dataset import training_images

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")


@pytest.fixture(autouse=True)
def not_waiting() -> Iterator[None]:
    def waited(*_: object) -> NoReturn:
        raise TimeoutError("it waits for the other end of the pipe")

    signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    yield
    signal.alarm(0)


READERS: dict[str, Callable[[Path], object]] = {
    "JSON": JsonKind("a note", dict, "Write it again").read,
    "checkpoint": read_checkpoint,
    "pickle": lambda file: check_array_pickle(file, "make it again"),
    "output": lambda file: require_output(file, "-o", ".png"),
    "images of a source": lambda file: image_files(file.parent),
    "files of a source": lambda file: files_below(file.parent),
    "nnU-Net's raw data": lambda file: training_images(file.parents[1], {"file_ending": ".png"}),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_pipe_a_device_and_links_to_them_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    file = tmp_path / "imagesTr" / "case_0000.png"
    file.parent.mkdir()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(file)
        with pytest.raises(InputError, match=rf"{file} is (a named pipe|a device|there already)"):
            read(file)
        assert file.exists()
        file.unlink()
