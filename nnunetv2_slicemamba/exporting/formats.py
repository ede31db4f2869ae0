"""Formats that a network can be exported to, and how a file of each is run."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_slicemamba.common.folders import InputError

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """One format.

    write(network, example, file) exports; load(file) gives what computes logits (1, classes, *patch) on the CPU.
    needs: packages that must be installed. suffix: of the file.
    """

    name: str
    suffix: str
    needs: tuple[str, ...]
    write: Callable[[nn.Module, Tensor, Path], None]
    load: Callable[[Path], Run]

    def require(self) -> None:
        """InputError naming what to install, if something is missing."""
        missing = [package for package in self.needs if importlib.util.find_spec(package) is None]
        if missing:
            raise InputError(f"--format {self.name} needs {', '.join(missing)}: pip install {' '.join(self.needs)}")
        if self.name != "torchscript" and not hasattr(torch.compiler, "is_exporting"):
            raise InputError(
                f"--format {self.name} needs PyTorch 2.7 or newer, this is {torch.__version__}: update it, or give "
                "--format torchscript"
            )


def _write_onnx(network: nn.Module, example: Tensor, file: Path) -> None:
    program = torch.onnx.export(network, (example,), dynamo=True, input_names=["image"], output_names=["logits"])
    assert program is not None
    program.save(str(file))


def _load_onnx(file: Path) -> Run:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda data: torch.from_numpy(session.run(None, {name: data.numpy()})[0])


def _write_from_memory(save: Callable[[io.BytesIO], None], file: Path) -> None:
    """Writes to a file what `save` writes to a buffer: PyTorch's own writer aborts the process on a full disk."""
    buffer = io.BytesIO()
    save(buffer)
    file.write_bytes(buffer.getbuffer())


def _write_torchscript(network: nn.Module, example: Tensor, file: Path) -> None:
    # the check would trace again and compare; the parity check does more
    traced: Any = torch.jit.trace(network, (example,), check_trace=False)
    _write_from_memory(lambda buffer: torch.jit.save(traced, buffer), file)


def _load_torchscript(file: Path) -> Run:
    with quietly():
        module: Run = torch.jit.load(str(file))
    return module


def _write_pt2(network: nn.Module, example: Tensor, file: Path) -> None:
    program = torch.export.export(network, (example,))
    _write_from_memory(lambda buffer: torch.export.save(program, buffer), file)


def _load_pt2(file: Path) -> Run:
    module: Run = torch.export.load(str(file)).module()
    return module


FORMATS = {
    format.name: format
    for format in (
        Format("onnx", ".onnx", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _load_onnx),
        Format("torchscript", ".ts", (), _write_torchscript, _load_torchscript),
        Format("pt2", ".pt2", (), _write_pt2, _load_pt2),
    )
}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Context without the exporters' reports and their warnings of constants, which all sizes in a network are."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
