"""Layout of one scan on the GPU: kernel variant, chunks and grid sizes, worked out once per shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from nnunetv2_slicemamba.ops.cuda import cubins
from nnunetv2_slicemamba.ops.cuda.cubins import BLOCK_CHANNELS, PIECE, THREADS, ScanVariant
from nnunetv2_slicemamba.ops.cuda.loading import device_numbers

FINISH_THREADS = 256  # of a block that sums partial results
COMBINE_ROWS = 4  # rows that one of its threads sums over the directions
# Blocks per multiprocessor from which whole sequences fill the GPU, and up to which chunks are cut otherwise. Chunks
# cost a second pass over the exponentials, so two of them gain nothing.
ENOUGH_BLOCKS = 2.6
CHUNKED_BLOCKS = 18.0
FEWEST_CHUNKS = 3
SAVED_DTYPE = {torch.float32: torch.float32, torch.float16: torch.bfloat16, torch.bfloat16: torch.bfloat16}

KERNELS = {  # name -> (threads, what its shared memory is for)
    "forward": {
        "forward_scan": (THREADS, "forward"),
        "forward_chunk": (THREADS, "forward"),
        "forward_carry": (THREADS, None),
        "forward_combine": (FINISH_THREADS, None),
    },
    "backward": {
        "backward_scan": (THREADS, "backward"),
        "backward_chunk": (THREADS, "forward"),
        "backward_carry": (THREADS, None),
        "backward_finish": (FINISH_THREADS, None),
    },
}


@dataclass(frozen=True)
class ScanPlan:
    """Sizes of one scan: counts of things, see ScanArgs in common.cuh."""

    device: int
    variant: ScanVariant
    batch: int
    L: int
    E: int
    K: int
    N: int
    channel_blocks: int  # blocks of BLOCK_CHANNELS channels
    stages: int  # of variant.stage tokens
    chunks: int
    chunk_stages: int  # stages per chunk

    @property
    def padded_channels(self) -> int:
        return self.channel_blocks * BLOCK_CHANNELS

    @property
    def scan_blocks(self) -> int:
        return self.batch * self.K * self.chunks * self.channel_blocks

    @property
    def chunk_blocks(self) -> int:
        return self.batch * self.K * (self.chunks - 1) * self.channel_blocks

    @property
    def carry_blocks(self) -> int:
        return -(-self.batch * self.K * self.padded_channels * self.variant.states // THREADS)

    @property
    def combine_blocks(self) -> int:
        per_row = self.E // (PIECE if self.variant.wide_rows else 1)
        return -(-(-(-self.batch * self.L // COMBINE_ROWS) * per_row) // FINISH_THREADS)

    @property
    def param_blocks(self) -> int:
        return -(-(self.K * self.padded_channels * (self.variant.states + 1) + self.padded_channels) // 32)

    @property
    def state_blocks(self) -> int:
        return -(-self.batch * self.L * self.K * self.variant.states // 2 // FINISH_THREADS)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """The numbers that end ScanArgs in common.cuh."""
        sizes = (self.batch, self.L, self.E, self.K, self.N)
        layout = (self.channel_blocks, self.stages, self.chunks, self.chunk_stages)
        return (*sizes, *layout, self.param_blocks, self.state_blocks)

    @cached_property
    def forward_launches(self) -> tuple[tuple[str, int], ...]:
        """Kernels of a forward pass in order, with their blocks."""
        chain = (("forward_chunk", self.chunk_blocks), ("forward_carry", self.carry_blocks))
        scan = (("forward_scan", self.scan_blocks), ("forward_combine", self.combine_blocks))
        return (*chain, *scan) if self.chunks > 1 else scan

    @cached_property
    def backward_launches(self) -> tuple[tuple[str, int], ...]:
        """Kernels of a backward pass in order, with their blocks."""
        chain = (("backward_chunk", self.chunk_blocks), ("backward_carry", self.carry_blocks))
        finish = self.param_blocks + self.state_blocks + self.combine_blocks
        scan = (("backward_scan", self.scan_blocks), ("backward_finish", finish))
        return (*chain, *scan) if self.chunks > 1 else scan

    @cached_property
    def forward_scratch(self) -> tuple[int, ...]:
        """Byte offsets in the forward pass's scratch memory of y, chunk_state, chunk_delta; last, its size."""
        return _offsets(self._direction_bytes, *self._chunk_bytes)

    @cached_property
    def backward_scratch(self) -> tuple[int, ...]:
        """Byte offsets of y, chunk_state, chunk_delta, state_parts, A_parts, bias_parts, D_parts; last, the size."""
        per_chunk = 4 * self.batch * self.chunks * self.padded_channels
        return _offsets(
            self._direction_bytes,
            *self._chunk_bytes,
            4 * self.channel_blocks * self.batch * self.L * self.K * 2 * self.variant.states,
            per_chunk * self.K * self.variant.states,
            per_chunk * self.K,
            per_chunk,
        )

    @property
    def _direction_bytes(self) -> int:
        return self.batch * self.K * self.L * self.E * self.variant.dtype.itemsize

    @property
    def _chunk_bytes(self) -> tuple[int, int]:
        deltas = 4 * self.batch * self.K * self.chunks * self.padded_channels if self.chunks > 1 else 0
        return deltas * self.variant.states, deltas


def _offsets(*sizes: int) -> tuple[int, ...]:
    """Starts of pieces of these sizes, each at a multiple of 256 bytes, and the end of the last one."""
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + -(-size // 256) * 256)
    return tuple(ends)


def saved_states(batch: int, L: int, E: int, K: int, N: int, device: int) -> int:
    """Elements of the array of states, of type SAVED_DTYPE, that the forward pass saves for the backward one."""
    states = cubins.padded_states(N)
    stage = cubins.stage_tokens(states, device_numbers(device)[2])
    return batch * K * -(-L // stage) * -(-E // BLOCK_CHANNELS) * BLOCK_CHANNELS * states


def chunk_stages(blocks: int, stages: int, multiprocessors: int) -> int:
    """Stages per chunk for a scan of `stages` stages whose uncut form has `blocks` thread blocks."""
    if blocks >= ENOUGH_BLOCKS * multiprocessors:
        return stages
    chunks = min(round(CHUNKED_BLOCKS * multiprocessors / max(blocks, 1)), stages // 2)
    return stages if chunks < FEWEST_CHUNKS else -(-stages // chunks)


@lru_cache(maxsize=1024)
def make_plan(
    device: int,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    A_shape: tuple[int, ...],
    dt_stride: tuple[int, ...],
    state_strides: tuple[int, ...],
    wide_rows: bool,
    wide_states: bool,
) -> ScanPlan:
    """Layout for x of shape (batch, L, E) and A of shape `A_shape` (K, E, N).

    dt_stride, state_strides: strides of dt and of B and C, but for their last axis, in elements. wide_rows: whether x,
    dt, dy and D start at multiples of 16 bytes; wide_states: whether B and C start at multiples of two elements.
    Raises ValueError if N is beyond what the kernels hold in registers.
    """
    batch, L, E = shape
    K, _, N = A_shape
    if not 1 <= N <= cubins.MAX_STATES:
        raise ValueError(
            f"N is {N}, the CUDA backend takes 1 to {cubins.MAX_STATES} states per channel; "
            "choose another backend, for example with SLICEMAMBA_BACKEND=torch"
        )
    _, multiprocessors, shared_bytes = device_numbers(device)
    states = cubins.padded_states(N)
    wide_rows = wide_rows and E % PIECE == 0 and all(stride * dtype.itemsize % 16 == 0 for stride in dt_stride)
    wide_states = wide_states and states == N and all(stride % 2 == 0 for stride in state_strides)
    stage = cubins.stage_tokens(states, shared_bytes)
    channel_blocks, stages = -(-E // BLOCK_CHANNELS), -(-L // stage)
    per_chunk = chunk_stages(batch * K * channel_blocks, stages, multiprocessors)
    variant = ScanVariant(dtype, states, stage, wide_rows, wide_states)
    chunks = -(-stages // per_chunk)
    return ScanPlan(device, variant, batch, L, E, K, N, channel_blocks, stages, chunks, per_chunk)
