"""The suite that every backend of the scan must pass, to subclass.

    class TestMine(ScanConformance):
        backend, device = "mine", "cuda"

The oracle is `slice_scan_reference` in float64 on the CPU; it is itself held against closed forms by these tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log1p, prod

import pytest
import torch
from torch import Tensor

from nnunetv2_slicemamba.ops import scan_orders, slice_scan
from nnunetv2_slicemamba.ops.backends import BACKENDS
from tests.ops.oracle import (
    CASES,
    HALF_TYPES,
    SMALL,
    TOLERANCE,
    Case,
    Inputs,
    assert_close,
    converted,
    expected,
    make_inputs,
    relative_error,
    spread_out,
    upstream,
    with_gradients,
)


class ScanConformance:
    """Subclass it, name the backend and, if that is not the CPU, the device."""

    backend: str
    device = "cpu"
    repeats_bits = True  # two passes over the same inputs give the same bits, not only nearly the same

    def scan(self, inputs: Inputs, case: Case) -> Tensor:
        return slice_scan(**inputs, sizes=case.sizes, thickness=case.thickness, backend=self.backend)

    def run(self, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        return with_gradients(converted(make_inputs(case), dtype, self.device), upstream(case), case, self.backend)

    def assert_same(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
        """Asserts that two passes over the same inputs give the same bits, if the backend repeats them."""
        for one, other in zip(a, b, strict=True):
            if self.repeats_bits:
                assert torch.equal(one, other)
            else:
                assert relative_error(one, other.detach().cpu().double()) < 1e-5

    def needs(self, dtype: torch.dtype) -> None:
        reason = BACKENDS[self.backend].unavailable_reason(torch.device(self.device), dtype)
        if reason is not None:
            pytest.skip(reason)

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_output_and_every_gradient_equal_the_reference(self, case: Case) -> None:
        self.needs(torch.float32)
        got = self.run(case, torch.float32)
        assert all(tensor.dtype == torch.float32 for tensor in got.values())
        assert_close(got, expected(case, torch.float32), TOLERANCE[torch.float32])

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_float64_is_computed_in_float64(self, case: Case) -> None:
        self.needs(torch.float64)
        got = self.run(case, torch.float64)
        assert all(tensor.dtype == torch.float64 for tensor in got.values())
        assert_close(got, expected(case, torch.float64), TOLERANCE[torch.float64])

    @pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
    @pytest.mark.parametrize("case", (SMALL, CASES[-2]), ids=str)
    def test_half_types_are_rounded_only_at_the_end(self, case: Case, dtype: torch.dtype) -> None:
        self.needs(dtype)
        got = self.run(case, dtype)
        assert all(tensor.dtype == dtype for tensor in got.values())
        assert_close(got, expected(case, dtype), torch.finfo(dtype).eps)

    def test_half_tokens_with_float32_parameters(self) -> None:
        self.needs(torch.bfloat16)
        inputs = converted({n: t.to(torch.bfloat16) for n, t in make_inputs(SMALL).items()}, torch.float32, self.device)
        for name in ("x", "dt", "B", "C"):
            inputs[name] = inputs[name].detach().to(torch.bfloat16).requires_grad_()
        got = with_gradients(inputs, upstream(SMALL).to(torch.bfloat16), SMALL, self.backend)
        assert all(got[name].dtype == tensor.dtype for name, tensor in inputs.items())
        assert_close(got, expected(SMALL, torch.bfloat16), torch.finfo(torch.bfloat16).eps)
        parameters = {name: got[name] for name in ("A", "D", "delta_bias", "dt_weight")}
        assert_close(parameters, expected(SMALL, torch.bfloat16), 1e-5)

    @pytest.mark.parametrize("case", (SMALL, CASES[-2], CASES[-5]), ids=str)
    def test_non_contiguous_tensors_give_the_same(self, case: Case) -> None:
        self.needs(torch.float32)
        inputs = {n: spread_out(t.detach()).requires_grad_() for n, t in self.float32(case).items()}
        assert not any(t.is_contiguous() for t in inputs.values() if t.numel() > 1)
        got = with_gradients(inputs, spread_out(upstream(case)), case, self.backend)
        assert_close(got, expected(case, torch.float32), TOLERANCE[torch.float32])

    def float32(self, case: Case) -> Inputs:
        return converted(make_inputs(case), torch.float32, self.device)

    @pytest.mark.parametrize("case", (SMALL, Case((3, 5, 4), (2, 4, 2))), ids=str)
    def test_an_impulse_decays_along_every_scan_order(self, case: Case) -> None:
        self.needs(torch.float32)
        length = prod(case.sizes)
        origin, rate, raw = length // 3, -0.3, 0.4
        inputs = {n: torch.ones_like(t) for n, t in make_inputs(case).items()}
        inputs["x"] = torch.zeros_like(inputs["x"])
        inputs["x"][:, origin] = 1
        inputs["A"] *= rate
        inputs["D"] *= 0
        inputs["dt"] *= raw / (case.rank or 1)
        inputs["delta_bias"] *= 0
        delta = log1p(exp(raw))
        wanted = torch.zeros(length, dtype=torch.float64)
        for order in scan_orders(case.sizes, case.thickness).tolist():
            start = order.index(origin)
            for step, position in enumerate(order[start:]):
                wanted[position] += case.states * delta * exp(rate * delta * step)
        got = self.scan({n: t.to(self.device, torch.float32) for n, t in inputs.items()}, case).cpu()
        assert torch.allclose(got.double(), wanted[None, :, None].expand_as(got), rtol=1e-5, atol=1e-6)

    def test_without_a_bias_it_is_zero(self) -> None:
        self.needs(torch.float32)
        inputs = self.float32(SMALL)
        zero = self.scan({**inputs, "delta_bias": torch.zeros_like(inputs["delta_bias"])}, SMALL)
        del inputs["delta_bias"]
        assert torch.equal(self.scan(inputs, SMALL), zero)

    def test_low_rank_steps_equal_their_expansion(self) -> None:
        self.needs(torch.float32)
        inputs = self.float32(SMALL)
        low_rank = self.scan(inputs, SMALL)
        weight = inputs.pop("dt_weight")
        inputs["dt"] = torch.einsum("blkr,ker->blke", inputs["dt"], weight)
        assert relative_error(low_rank.detach(), self.scan(inputs, SMALL).detach().cpu().double()) < 1e-6

    def test_two_runs_give_the_same_bits(self) -> None:
        self.needs(torch.float32)
        case = Case((17, 23), (4, 2), batch=2, channels=40, states=8, rank=5)
        first, second = self.run(case, torch.float32), self.run(case, torch.float32)
        self.assert_same(list(first.values()), list(second.values()))

    def test_a_batch_is_its_images(self) -> None:
        self.needs(torch.float32)
        inputs = {n: t.detach() for n, t in self.float32(CASES[-1]).items()}
        together = self.scan(inputs, CASES[-1])
        for image in range(CASES[-1].batch):
            one = {n: t[image : image + 1] if n in ("x", "dt", "B", "C") else t for n, t in inputs.items()}
            alone = self.scan(one, CASES[-1])[0]
            assert relative_error(together[image], alone.cpu().double()) < 1e-6

    @pytest.mark.parametrize("wanted", ("x", "dt", "B", "C", "A", "D", "delta_bias", "dt_weight"))
    def test_one_gradient_alone_is_the_same(self, wanted: str) -> None:
        self.needs(torch.float32)
        inputs = {n: t.requires_grad_(n == wanted) for n, t in self.float32(SMALL).items()}
        self.scan(inputs, SMALL).backward(upstream(SMALL).to(self.device, torch.float32))
        assert [n for n, t in inputs.items() if t.grad is not None] == [wanted]
        gradient = inputs[wanted].grad
        assert gradient is not None
        assert relative_error(gradient, expected(SMALL, torch.float32)[wanted]) < TOLERANCE[torch.float32]

    def test_an_expanded_upstream_gradient_works(self) -> None:
        self.needs(torch.float32)
        inputs = self.float32(SMALL)
        out = self.scan(inputs, SMALL)
        spread = torch.autograd.grad(out.sum(), list(inputs.values()), retain_graph=True)
        plain = torch.autograd.grad(out, list(inputs.values()), torch.ones_like(out))
        self.assert_same(spread, plain)

    def test_autocast_does_not_touch_the_recurrence(self) -> None:
        self.needs(torch.float32)
        inputs = self.float32(SMALL)
        plain = self.scan(inputs, SMALL)
        with torch.autocast(self.device, torch.bfloat16):
            autocast = self.scan(inputs, SMALL)
        assert autocast.dtype == torch.float32
        assert torch.equal(plain, autocast)

    def test_autocast_does_not_touch_the_gradients(self) -> None:
        self.needs(torch.float32)
        plain = self.run(SMALL, torch.float32)
        with torch.autocast(self.device, torch.bfloat16):
            autocast = self.run(SMALL, torch.float32)
        assert autocast.keys() == plain.keys()
        self.assert_same(list(autocast.values()), list(plain.values()))

    def test_without_gradients_the_output_is_the_same(self) -> None:
        self.needs(torch.float32)
        inputs = self.float32(SMALL)
        with torch.no_grad():
            out = self.scan(inputs, SMALL)
        assert not out.requires_grad
        assert torch.equal(out, self.scan(inputs, SMALL))

    def test_training_works_after_a_first_call_in_inference_mode(self) -> None:
        self.needs(torch.float32)
        case = Case((4, 19), (3, 2))  # sizes that no other test uses: the orders are made here
        inputs = self.float32(case)
        with torch.inference_mode():
            first = self.scan(inputs, case)
        got = self.run(case, torch.float32)
        assert torch.equal(got["out"], first.clone())
        assert_close(got, expected(case, torch.float32), TOLERANCE[torch.float32])

    @pytest.mark.parametrize("value", (float("nan"), float("inf")), ids=("nan", "inf"))
    @pytest.mark.parametrize("name", ("x", "dt", "B", "C", "D", "delta_bias", "dt_weight", "A"))
    def test_what_is_not_finite_reaches_output_and_gradients(self, name: str, value: float) -> None:
        self.needs(torch.float32)
        if name == "A" and value > 0:
            value = float("nan")  # A is negative
        inputs = {n: t.detach() for n, t in self.float32(SMALL).items()}
        inputs[name].view(-1)[inputs[name].numel() // 2] = value
        inputs = {n: t.requires_grad_() for n, t in inputs.items()}
        out = self.scan(inputs, SMALL)
        assert not out.isfinite().all()
        out.sum().backward()
        assert any(t.grad is not None and not t.grad.isfinite().all() for t in inputs.values())

    def test_a_nan_token_spoils_its_channel_everywhere_and_no_other(self) -> None:
        self.needs(torch.float32)
        inputs = {n: t.detach() for n, t in self.float32(SMALL).items()}
        inputs["x"][1, 3, 5] = float("nan")
        spoilt = self.scan(inputs, SMALL).isnan()
        assert spoilt[1, :, 5].all()
        assert spoilt.sum() == prod(SMALL.sizes)

    @pytest.mark.parametrize("states", (4, 16))
    def test_extreme_inputs_stay_finite_and_right(self, states: int) -> None:
        self.needs(torch.float32)
        case = Case((5, 7), (2, 4), channels=18, states=states)
        inputs = make_inputs(case)
        for name in ("x", "dt", "B", "C"):
            inputs[name] *= 1e3
        inputs["delta_bias"] = torch.full_like(inputs["delta_bias"], 10.0)
        inputs = {n: t.float() for n, t in inputs.items()}
        wanted = with_gradients(converted(inputs, torch.float64), upstream(case), case, "reference")
        assert all(tensor.isfinite().all() for tensor in wanted.values())
        got = with_gradients(converted(inputs, torch.float32, self.device), upstream(case), case, self.backend)
        assert_close(got, wanted, 2e-5)

    def test_the_backward_keeps_few_states(self) -> None:
        self.needs(torch.float32)
        case = Case((32, 64), (2, 4), batch=1, channels=32, states=16)
        inputs = self.float32(case)
        inputs_bytes = sum(t.numel() * t.element_size() for t in inputs.values())
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.scan(inputs, case)
        every_state = 4 * prod(case.sizes) * inputs["A"].numel()
        assert 0 < sum(saved.values()) < inputs_bytes + every_state / 12
