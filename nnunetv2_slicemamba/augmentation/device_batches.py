"""Batches augmented on the device that trains, ahead of their use, in a thread and on a stream of their own."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch import Tensor

from nnunetv2_slicemamba.augmentation.batch import Batch
from nnunetv2_slicemamba.augmentation.cases import Case, cases_in_memory
from nnunetv2_slicemamba.augmentation.patches import Slot, fill, make_slots
from nnunetv2_slicemamba.augmentation.policy import Policy
from nnunetv2_slicemamba.augmentation.recorded import Layout, RecordedPolicy
from nnunetv2_slicemamba.augmentation.seeds import generators_seeded
from nnunetv2_slicemamba.augmentation.workers import BatchWorkers
from nnunetv2_slicemamba.common.library_errors import first_line

log = logging.getLogger(__name__)

SeedOf = Callable[[int], np.random.SeedSequence]
Made = tuple[Batch, list[str], "torch.cuda.Event | None"]  # with its cases, and what its use has to wait for
READY = 1  # batches that wait for the training, besides the one that the thread holds
WAIT_SECONDS = 0.5  # between looks whether the other side still lives


class ReadBatch:
    """Reads a batch's patches, and draws what its augmentation needs, into its place in shared memory.

    layout: of the draws; None if they are drawn elsewhere. kept: cases in memory.
    """

    def __init__(
        self,
        loader: nnUNetDataLoader,
        slots: list[Slot],
        labels: Sequence[int],
        seed_of: SeedOf,
        policy: Policy,
        layout: Layout | None,
        kept: Mapping[str, Case],
    ) -> None:
        self.loader, self.slots, self.labels, self.seed_of = loader, slots, labels, seed_of
        self.policy, self.layout, self.kept = policy, layout, kept

    def __call__(self, number: int, place: int) -> list[str]:
        slot = self.slots[place]
        if self.layout is not None and slot.draws is not None:
            arrays = self.policy.arrays(tuple(slot.data.shape), seed_of_policy(self.seed_of, number))
            self.layout.write(arrays, slot.draws.numpy())
        with generators_seeded(self.seed_of(number)):
            return fill(slot, self.loader, self.labels, self.kept)


def seed_of_policy(seed_of: SeedOf, number: int) -> np.random.SeedSequence:
    """The seed of a batch's augmentation: patches are drawn from the batch's seed itself."""
    return seed_of(number).spawn(1)[0]


class DeviceBatches:
    """Endless iterator over augmented batches, as nnU-Net's trainers expect it: data, target, keys.

    policy: applied on `device`. seed_of: the seed of a batch's patches and augmentation by its number. first: number
    of the first batch. processes: that read patches. start() is called once all processes of the training have been
    started, as a thread must not be copied with them.
    """

    def __init__(
        self,
        loader: nnUNetDataLoader,
        policy: Policy,
        labels: Sequence[int],
        device: torch.device,
        seed_of: SeedOf,
        first: int,
        processes: int,
    ) -> None:
        self.policy, self.device, self.seed_of = policy, device, seed_of
        self.slots = make_slots(loader, processes + 2)
        self.layout: Layout | None = None
        self.recorded: RecordedPolicy | None = None
        if device.type == "cuda" and policy.is_fixed and processes:
            self.layout = Layout.of(policy.arrays(tuple(self.slots[0].data.shape), np.random.SeedSequence(0)))
            size = self.layout.bytes
            self.slots = [
                replace(slot, draws=torch.zeros(size, dtype=torch.uint8).share_memory_()) for slot in self.slots
            ]
        # processes that are not forked would each get a copy
        shared = not processes or multiprocessing.get_start_method() == "fork"
        kept = cases_in_memory(loader) if shared else {}
        read = ReadBatch(loader, self.slots, labels, seed_of, policy, self.layout, kept)
        self.workers = BatchWorkers(read, first, processes, places=len(self.slots))
        self.ready: Queue[Made | BaseException] = Queue(READY)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="augmentation", daemon=True)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self) -> DeviceBatches:
        # without processes the training's own draws the patches, from generators that are not a thread's to seed
        if self.workers.processes:
            if self.layout is not None:
                self._record(self.layout)
            atexit.register(self.close)
            self.thread.start()
        return self

    def _record(self, layout: Layout) -> None:
        slot = self.slots[0]
        try:
            with on(self.device):
                self.recorded = RecordedPolicy(self.policy, Batch(slot.data, slot.seg), layout, self.device)
        except RuntimeError as error:
            why = first_line(error)
            log.warning("batches are augmented without a CUDA graph, which could not be recorded: %s", why)

    def __iter__(self) -> DeviceBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        batch, cases, done = self._ready() if self.workers.processes else self._make()
        if done is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(done)
            for tensor in tensors(batch):
                # they were allocated on another stream, which must not use their memory again too early
                tensor.record_stream(current)
        return {"data": batch.data, "target": batch.seg, "keys": cases}

    def _ready(self) -> Made:
        while True:
            try:
                made = self.ready.get(timeout=WAIT_SECONDS)
            except Empty:
                if not self.thread.is_alive():
                    raise RuntimeError("the augmentation's thread has ended") from None
            else:
                if isinstance(made, BaseException):
                    raise made
                return made

    def close(self) -> None:
        """Ends the thread and the processes."""
        atexit.unregister(self.close)
        self.ended.set()
        if self.thread.is_alive():
            self.thread.join()
        self.workers.close()

    def _run(self) -> None:
        try:
            with on(self.device), pinned(self.slots) if self.stream else nullcontext(), torch.no_grad():
                while not self.ended.is_set():
                    self._hand_over(self._make())
        except BaseException as error:
            self._hand_over(error)

    def _hand_over(self, made: Made | BaseException) -> None:
        while not self.ended.is_set():
            try:
                self.ready.put(made, timeout=WAIT_SECONDS)
                return
            except Full:
                continue

    def _make(self) -> Made:
        number, place, cases = next(self.workers)
        slot = self.slots[place]
        if self.stream is None:
            batch = Batch(slot.data.clone(), slot.seg.clone())
            self.workers.release(place)
            return self.policy(batch, seed_of_policy(self.seed_of, number)), cases, None
        # waiting for such an event leaves the core to others
        copied = torch.cuda.Event(blocking=True)
        with torch.cuda.stream(self.stream):
            if self.recorded is not None and slot.draws is not None:
                self.recorded.load(slot.data, slot.seg, slot.draws)
                copied.record()
                batch = self.recorded()
            else:
                batch = Batch(*(t.to(self.device, non_blocking=True) for t in (slot.data, slot.seg)))
                copied.record()
                batch = self.policy(batch, seed_of_policy(self.seed_of, number))
            done = self.stream.record_event()
        copied.synchronize()
        self.workers.release(place)
        return batch, cases, done


def tensors(batch: Batch) -> list[Tensor]:
    return [batch.data, *(batch.seg if isinstance(batch.seg, list) else [batch.seg])]


def on(device: torch.device) -> AbstractContextManager[Any]:
    """The device as the thread's present one; threads begin with the first GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def pinned(slots: Sequence[Slot]) -> Iterator[None]:
    """Keeps the slots in physical memory for a while, from which copies to a GPU are fast and need no waiting."""
    cuda, registered = torch.cuda.cudart(), []
    for tensor in (t for slot in slots for t in slot.tensors):
        if int(cuda.cudaHostRegister(tensor.data_ptr(), tensor.numel() * tensor.element_size(), 0)) == 0:
            registered.append(tensor)
        else:
            # copies are slower then, and nothing else; CUDA keeps the error for its next call, which is this one
            with suppress(RuntimeError):
                torch.zeros(1, device="cuda")
    try:
        yield
    finally:
        torch.cuda.synchronize()
        for tensor in registered:
            cuda.cudaHostUnregister(tensor.data_ptr())
