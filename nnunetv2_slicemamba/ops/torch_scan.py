"""The torch backend: the scan by PyTorch operations only, on any device, with its own backward.

The tokens are taken in chunks. The forward keeps the state at the start of every chunk and nothing else per step; the
backward runs over the chunks from last to first and recomputes the states inside each one. Within a chunk everything
but the recurrence itself is one operation over all tokens, and the recurrence is one operation per token over every
(direction, image, state, channel). Recurrence: S6, Gu & Dao 2023.

Layout inside: (T, K, batch, N, E), channels innermost, so that every broadcast runs over contiguous channels. The
arrays of that shape are allocated once a call and reused by every chunk: on a CPU fresh ones cost more than the
arithmetic, and small ones stay in the caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import e, log2
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2_slicemamba.ops.compiling import not_compiled
from nnunetv2_slicemamba.ops.dtypes import recurrence_dtype
from nnunetv2_slicemamba.ops.inputs import differentiable_once, without_autocast
from nnunetv2_slicemamba.ops.orders import cached_orders

_CHUNK_TOKENS = (8, 128)
_LOG2_E = log2(e)


@dataclass(frozen=True)
class _Budget:
    """Numbers in one state (of the images taken together) and in one array of a chunk's states."""

    state: int
    chunk: int


# On a CPU a chunk's arrays should stay in the caches; elsewhere fewer and larger operations matter more.
_BUDGET_CPU = _Budget(state=1 << 14, chunk=1 << 19)
_BUDGET = _Budget(state=1 << 20, chunk=1 << 23)


@dataclass(frozen=True)
class _Plan:
    """Sizes of the pieces of one scan: `images` at a time, `tokens` per chunk."""

    images: int
    tokens: int

    @staticmethod
    def for_scan(batch: int, per_image: int, length: int, device: torch.device) -> _Plan:
        """Plan for `length` tokens of `batch` images; per_image: numbers in the state of one image, K * E * N."""
        budget = _BUDGET_CPU if device.type == "cpu" else _BUDGET
        images = max(1, min(batch, budget.state // max(1, per_image)))
        low, high = _CHUNK_TOKENS
        return _Plan(images, min(length, max(low, min(high, budget.chunk // max(1, images * per_image)))))


class _Inputs(NamedTuple):
    """The tensors of `slice_scan`, converted to the type of the recurrence."""

    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    A: Tensor
    D: Tensor
    bias: Tensor
    weight: Tensor | None


class _Scan:
    """One call's tensors as rows (image and token, or image, token and direction), and the arrays its chunks share."""

    def __init__(self, inputs: _Inputs, orders: Tensor, plan: _Plan, arrays: int) -> None:
        x, dt, B, C, A, _, bias, self.weight = inputs
        self.orders = orders
        self.plan = plan
        self.x, self.dt, self.B, self.C = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (x, dt, B, C))
        self.A = A.transpose(1, 2).contiguous().unsqueeze(1)  # (K, 1, N, E)
        self.A2 = self.A * _LOG2_E  # exp2 is twice as fast as exp on a CPU
        self.bias = bias.unsqueeze(1)  # (K, 1, E)
        self.batch, self.length, E = x.shape
        K, _, N, _ = self.A.shape
        self.state_shape = (K, plan.images, N, E)
        self.arrays = [x.new_empty(plan.tokens, *self.state_shape) for _ in range(arrays)]

    def image_groups(self) -> Iterator[tuple[int, int]]:
        """First image and number of images of every group that is scanned together."""
        for first in range(0, self.batch, self.plan.images):
            yield first, min(self.plan.images, self.batch - first)

    def chunk_rows(self, first: int, count: int) -> list[Tensor]:
        """Rows of x (T, K, images) that the chunks visit, for a group of images."""
        images = torch.arange(first, first + count, device=self.x.device) * self.length
        rows = self.orders.t().unsqueeze(-1) + images
        return list(rows.split(self.plan.tokens))


class _Chunk:
    """The tokens at rows (T, K, images) of x, in scan order, and their step sizes."""

    def __init__(self, scan: _Scan, rows: Tensor) -> None:
        self.rows = rows
        directions = torch.arange(rows.shape[1], device=rows.device).unsqueeze(-1)
        self.direction_rows = (rows * rows.shape[1] + directions).flatten()
        self.x = scan.x.index_select(0, rows.flatten()).view(*rows.shape, -1)  # (T, K, images, E)
        self.dt = self._in_scan_order(scan.dt)  # (T, K, images, E or R)
        self.B = self._in_scan_order(scan.B)  # (T, K, images, N)
        self.C = self._in_scan_order(scan.C)
        raw = self.dt if scan.weight is None else torch.einsum("tkbr,ker->tkbe", self.dt, scan.weight)
        self.raw = raw + scan.bias
        self.delta = F.softplus(self.raw)
        self.dx = self.delta * self.x

    def _in_scan_order(self, tensor: Tensor) -> Tensor:
        return tensor.index_select(0, self.direction_rows).view(*self.rows.shape, -1)

    def array(self, scan: _Scan, number: int) -> Tensor:
        """Array (T, K, images, N, E), uninitialised, shared with the other chunks."""
        return scan.arrays[number][: self.rows.shape[0], :, : self.rows.shape[2]]

    def states(self, scan: _Scan, h: Tensor) -> tuple[Tensor, Tensor]:
        """Decay factors and states after each token, (T, K, images, N, E) each, from the state h before the first."""
        decay, states = self.array(scan, 0), self.array(scan, 1)
        torch.mul(self.delta.unsqueeze(-2), scan.A2, out=decay).exp2_()
        torch.mul(self.dx.unsqueeze(-2), self.B.unsqueeze(-1), out=states)
        for factor, state in zip(decay.unbind(), states.unbind(), strict=True):
            h = state.addcmul_(factor, h)
        return decay, states

    def add_to(self, out: Tensor, values: Tensor) -> None:
        """Adds values (T, K, images, E) to the rows of out that they belong to.

        One direction after another: its rows are distinct, so every sum has a fixed order on every device.
        """
        rows, values = self.rows.transpose(0, 1).flatten(1), values.transpose(0, 1).flatten(1, 2)
        for k in range(len(rows)):
            out.index_add_(0, rows[k], values[k])

    def write_to(self, out: Tensor, values: Tensor) -> None:
        """Writes values (T, K, images, *) to the rows of out (image, token and direction) that they belong to."""
        out.index_copy_(0, self.direction_rows, values.reshape(-1, values.shape[-1]))


def _forward(scan: _Scan, out: Tensor, kept: Tensor | None) -> None:
    """Adds the directions' sums to out (batch * L, E); writes the states before the chunks to kept (chunks, ...)."""
    for first, count in scan.image_groups():
        h = torch.zeros_like(scan.arrays[0][0, :, :count])
        for c, rows in enumerate(scan.chunk_rows(first, count)):
            if kept is not None:
                kept[c, :, first : first + count] = h
            chunk = _Chunk(scan, rows)
            _, states = chunk.states(scan, h)
            chunk.add_to(out, torch.matmul(chunk.C.unsqueeze(-2), states).squeeze(-2))
            h.copy_(states[-1])


@dataclass(frozen=True)
class _Gradients:
    """Gradients that are filled chunk by chunk: x, dt, B, C as rows, the parameters as sums."""

    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    A: Tensor  # (K, N, E)
    bias: Tensor
    weight: Tensor | None


def _backward_chunk(scan: _Scan, chunk: _Chunk, gy: Tensor, start: Tensor, carry: Tensor, grads: _Gradients) -> None:
    """One chunk's share of the gradients.

    gy: (T, K, images, E). start: the state before the chunk. carry: the gradient of the state after the chunk that its
    later tokens cause; replaced by the same for the state before it.
    """
    decay, states = chunk.states(scan, start)
    gh, product = chunk.array(scan, 2), chunk.array(scan, 3)
    torch.mul(gy.unsqueeze(-2), chunk.C.unsqueeze(-1), out=gh)
    gh[-1].add_(carry)
    steps, factors = gh.unbind(), decay.unbind()
    later = steps[-1]
    for step, factor in zip(steps[-2::-1], factors[:0:-1], strict=True):
        later = step.addcmul_(factor, later)
    torch.mul(factors[0], later, out=carry)

    chunk.write_to(grads.C, torch.mul(states, gy.unsqueeze(-2), out=product).sum(-1))
    chunk.write_to(grads.B, torch.mul(gh, chunk.dx.unsqueeze(-2), out=product).sum(-1))
    gdx = torch.matmul(chunk.B.unsqueeze(-2), gh).squeeze(-2)
    gh.mul_(decay)  # from here on the gradient of the exponent, delta * A
    gh[1:].mul_(states[:-1])
    gh[0].mul_(start)
    grads.A.add_(torch.mul(gh, chunk.delta.unsqueeze(-2), out=product).sum((0, 2)))
    graw = gh.mul_(scan.A).sum(-2).addcmul_(gdx, chunk.x).mul_(torch.sigmoid(chunk.raw))
    chunk.add_to(grads.x, gdx.mul_(chunk.delta))

    grads.bias.add_(graw.sum((0, 2)))
    if scan.weight is not None and grads.weight is not None:
        grads.weight.add_(torch.einsum("tkbe,tkbr->ker", graw, chunk.dt))
        graw = torch.einsum("tkbe,ker->tkbr", graw, scan.weight)
    chunk.write_to(grads.dt, graw)


def _rows_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape[:-1].numel(), tensor.shape[-1])


class _TorchScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, orders: Tensor, keep: bool, *inputs: Any) -> Tensor:
        x, _, _, _, A, D, _, _ = inputs
        plan = _Plan.for_scan(x.shape[0], A.numel(), x.shape[1], x.device)
        scan = _Scan(_Inputs(*inputs), orders, plan, arrays=2)
        chunks = -(-x.shape[1] // plan.tokens)
        kept = x.new_empty(chunks, A.shape[0], x.shape[0], A.shape[2], A.shape[1]) if keep else None
        out = scan.x * D.sum(0)
        _forward(scan, out, kept)
        ctx.save_for_backward(*inputs, kept)
        ctx.orders, ctx.plan = orders, plan
        return out.view(x.shape)

    @staticmethod
    @differentiable_once
    @without_autocast
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        *saved, kept = ctx.saved_tensors
        inputs = _Inputs(*saved)
        x, dt, B, C, A, D, bias, weight = inputs
        scan = _Scan(inputs, ctx.orders, ctx.plan, arrays=4)
        gy = grad_output.reshape(-1, grad_output.shape[-1])
        grads = _Gradients(
            x=gy * D.sum(0),
            dt=_rows_like(dt),
            B=_rows_like(B),
            C=_rows_like(C),
            A=A.new_zeros(A.transpose(1, 2).shape),
            bias=torch.zeros_like(bias),
            weight=None if weight is None else torch.zeros_like(weight),
        )
        for first, count in scan.image_groups():
            carry = torch.zeros_like(scan.arrays[0][0, :, :count])
            for c, rows in reversed(list(enumerate(scan.chunk_rows(first, count)))):
                chunk = _Chunk(scan, rows)
                gy_chunk = gy.index_select(0, rows.flatten()).view(*rows.shape, -1)
                _backward_chunk(scan, chunk, gy_chunk, kept[c, :, first : first + count], carry, grads)
        results = (
            grads.x.view(x.shape),
            grads.dt.view(dt.shape),
            grads.B.view(B.shape),
            grads.C.view(C.shape),
            grads.A.transpose(1, 2),
            (gy * scan.x).sum(0).expand_as(D).contiguous(),
            grads.bias,
            grads.weight,
        )
        needed = ctx.needs_input_grad[2:]
        return None, None, *(grad if need else None for grad, need in zip(results, needed, strict=True))


@not_compiled
def scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    sizes: tuple[int, ...],
    thickness: tuple[int, ...],
    delta_bias: Tensor,
    dt_weight: Tensor | None,
) -> Tensor:
    """The scan `slice_scan` for checked arguments; returns (batch, L, E) in the type of the recurrence."""
    dtype = recurrence_dtype(x.dtype)
    inputs = [None if t is None else t.to(dtype) for t in (x, dt, B, C, A, D, delta_bias, dt_weight)]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    return _TorchScan.apply(cached_orders(sizes, thickness, x.device), keep, *inputs)
