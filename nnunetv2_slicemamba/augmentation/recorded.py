"""A policy's operations as a CUDA graph, and what it draws as one block of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Arrays, Batch, Normals, Shape
from nnunetv2_slicemamba.augmentation.policy import Policy

ALIGNMENT = 16  # bytes
WARM_UPS = 2  # passes before recording: constants are copied to the device, libraries load
SEED = np.dtype(np.int64)


@dataclass(frozen=True)
class Entry:
    """Place of one array. step, name: of the operation, and what it calls the array. offset: in bytes. normals: the
    array is the seed of standard normal numbers of this shape."""

    step: int
    name: str
    dtype: np.dtype[Any]
    shape: Shape
    offset: int
    normals: Shape | None

    @property
    def bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def of(self, block: NDArray[np.uint8]) -> NDArray[Any]:
        """The array in a block of memory."""
        return block[self.offset : self.offset + self.bytes].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """Places of a policy's arrays in one block of memory; for batches of one shape they are always the same."""

    entries: tuple[Entry, ...]
    steps: int

    @classmethod
    def of(cls, arrays: Sequence[Arrays]) -> Layout:
        """Places for arrays like these."""
        entries: list[Entry] = []
        end = 0
        for step, named in enumerate(arrays):
            for name, value in named.items():
                seeded = isinstance(value, Normals)
                shape, dtype = ((1,), SEED) if isinstance(value, Normals) else (value.shape, value.dtype)
                entry = Entry(step, name, dtype, shape, end, value.shape if seeded else None)
                entries.append(entry)
                end = math.ceil((end + entry.bytes) / ALIGNMENT) * ALIGNMENT
        return cls(tuple(entries), len(arrays))

    @property
    def bytes(self) -> int:
        return max(1, *(entry.offset + entry.bytes for entry in self.entries)) if self.entries else 1

    def write(self, arrays: Sequence[Arrays], block: NDArray[np.uint8]) -> None:
        """Writes a policy's arrays into a block of memory. ValueError if one has another shape than its place."""
        for entry in self.entries:
            value = arrays[entry.step][entry.name]
            entry.of(block)[...] = value.seed if isinstance(value, Normals) else value


class RecordedPolicy:
    """A policy for batches of one shape as a CUDA graph: the host starts it in one call.

    batch: one of that shape, on any device. Where and what for: see Layout. Recording takes place at once, on the
    present stream's device. Calls follow each other on one stream. RuntimeError if it cannot be recorded.
    """

    def __init__(self, policy: Policy, batch: Batch, layout: Layout, device: torch.device) -> None:
        self.data = torch.zeros(batch.shape, device=device)
        self.seg = torch.zeros(batch.seg.shape, dtype=batch.seg.dtype, device=device)
        self.block = torch.zeros(layout.bytes, dtype=torch.uint8, device=device)
        self.seeds = [entry for entry in layout.entries if entry.normals is not None]
        self.normals = [torch.zeros(entry.normals or (), device=device) for entry in self.seeds]
        self.generator = torch.Generator(device)
        given: list[dict[str, Tensor]] = [{} for _ in range(layout.steps)]
        for entry in layout.entries:
            part = self.block[entry.offset : entry.offset + entry.bytes]
            given[entry.step][entry.name] = part.view(torch_dtype(entry.dtype)).view(entry.shape)
        for entry, numbers in zip(self.seeds, self.normals, strict=True):
            given[entry.step][entry.name] = numbers

        example = policy.arrays(batch.shape, np.random.SeedSequence(0))
        block = np.zeros(layout.bytes, np.uint8)
        layout.write(example, block)
        self.block.copy_(torch.from_numpy(block))
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                policy.change(Batch(self.data, self.seg), given)
        torch.cuda.current_stream(device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.changed = policy.change(Batch(self.data, self.seg), given)

    def load(self, data: Tensor, seg: Tensor, block: Tensor) -> None:
        """Copies a batch and the block of its draws to the device; the host may not wait for it."""
        self.data.copy_(data, non_blocking=True)
        self.seg.copy_(seg, non_blocking=True)
        self.block.copy_(block, non_blocking=True)
        on_host = block.numpy()
        for entry, numbers in zip(self.seeds, self.normals, strict=True):
            numbers.normal_(generator=self.generator.manual_seed(int(entry.of(on_host)[0])))

    def __call__(self) -> Batch:
        """The loaded batch after all operations, in memory of its own."""
        self.graph.replay()
        seg = self.changed.seg
        return Batch(self.changed.data.clone(), [s.clone() for s in seg] if isinstance(seg, list) else seg.clone())


def torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
