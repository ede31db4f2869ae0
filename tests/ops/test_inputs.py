"""Arguments that do not fit are refused before anything is computed."""

from typing import Any

import pytest
import torch

from nnunetv2_slicemamba.ops import available_backends, slice_scan
from tests.ops.oracle import SMALL, make_inputs


def scan(inputs: Any, sizes: tuple[int, ...] = SMALL.sizes, thickness: tuple[int, ...] = SMALL.thickness) -> None:
    slice_scan(**inputs, sizes=sizes, thickness=thickness)


SHAPES = {
    "x": (2, 34, 18),
    "dt": (2, 35, 4, 2),
    "B": (2, 35, 4, 5),
    "C": (2, 35, 3, 4),
    "A": (4, 17, 4),
    "D": (4, 17),
    "delta_bias": (18,),
    "dt_weight": (4, 17, 3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_does_not_fit_is_named_with_what_it_must_be(name: str) -> None:
    inputs = make_inputs(SMALL)
    right = tuple(inputs[name].shape)
    inputs[name] = torch.zeros(SHAPES[name])
    with pytest.raises(ValueError, match=name if name != "x" else "x has 34 tokens") as error:
        scan(inputs)
    assert str(SHAPES[name]) in str(error.value) or name == "x"
    assert str(right) in str(error.value) or name in ("x", "A")
    assert ";" in str(error.value)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_no_tensor_is_refused(name: str) -> None:
    inputs = make_inputs(SMALL)
    inputs[name] = inputs[name].tolist()
    with pytest.raises(ValueError, match=f"{name} is of type list, it must be a tensor: give"):
        scan(inputs)


@pytest.mark.parametrize("name", ("x", "A", "dt_weight"))
def test_a_wrong_number_of_axes_is_refused(name: str) -> None:
    inputs = make_inputs(SMALL)
    inputs[name] = inputs[name][0]
    with pytest.raises(ValueError, match=f"{name} has shape .* must be"):
        scan(inputs)


def test_sizes_of_another_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x has 35 tokens, sizes \(5, 8\) make 40; give"):
        scan(make_inputs(SMALL), sizes=(5, 8))


def test_a_thickness_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"thickness is .* at least 1; give"):
        scan(make_inputs(SMALL), thickness=(0, 2))


def test_whole_numbers_are_refused() -> None:
    inputs = make_inputs(SMALL)
    inputs["B"] = inputs["B"].long()
    with pytest.raises(ValueError, match=r"B is torch.int64, it must be a floating type; convert"):
        scan(inputs)


def test_tensors_on_different_devices_are_refused() -> None:
    inputs = make_inputs(SMALL)
    inputs["A"] = inputs["A"].to("meta")
    with pytest.raises(ValueError, match=r"A is on meta and x on cpu, they must share one; move"):
        scan(inputs)


@pytest.mark.parametrize("backend", ("torch", "numba"))
def test_second_derivatives_of_compiled_scans_are_refused_and_the_reference_has_them(backend: str) -> None:
    """A penalty on the gradient of a sum: no gradient comes in that depends on anything."""
    inputs = {name: t.float().requires_grad_() for name, t in make_inputs(SMALL).items()}

    def penalty(backend: str) -> torch.Tensor:
        out = slice_scan(**inputs, sizes=SMALL.sizes, thickness=SMALL.thickness, backend=backend)
        (gradient,) = torch.autograd.grad(out.sum(), inputs["x"], create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), inputs["B"])[0]

    with pytest.raises(RuntimeError, match="differentiable once; .*SLICEMAMBA_BACKEND=reference"):
        penalty(backend)
    assert penalty("reference").abs().max() > 0


@pytest.mark.parametrize("value", (float("nan"), float("inf")))
@pytest.mark.parametrize("name", ("x", "dt", "B", "C"))
@pytest.mark.parametrize("backend", available_backends("cpu"))
def test_values_that_are_not_finite_spread_and_do_not_vanish(backend: str, name: str, value: float) -> None:
    inputs = {key: tensor.float() for key, tensor in make_inputs(SMALL).items()}
    inputs[name].view(-1)[3] = value
    scanned = slice_scan(**inputs, sizes=SMALL.sizes, thickness=SMALL.thickness, backend=backend)
    assert not scanned.isfinite().all()
