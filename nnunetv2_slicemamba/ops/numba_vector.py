"""Vector instructions in numba kernels: a numba type for WIDTH float32 numbers that are computed together.

numba leaves vectorisation to LLVM's loop optimiser, which gives up on the scan's loops or guards them with checks, and
it has no vector exponential without Intel's library. With a vector type the kernels say what they want, and LLVM maps
it to the registers of the CPU at hand. In kernels: load, store, splat, total, exp2, softplus, + and *.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import types
from numba.extending import models, overload, register_model

WIDTH = 16

intrinsic: Any = extending.intrinsic
# Products may be fused with sums; nothing else, so NaN, infinity and the rounding trick in exp2 keep their meaning.
_FLAGS = ("contract",)
_VECTOR_IR = ir.VectorType(ir.FloatType(), WIDTH)
_INTEGERS_IR = ir.VectorType(ir.IntType(32), WIDTH)


class VectorType(types.Type):
    """Type of the vector in numba."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR_IR)


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR_IR, [float(np.float32(value))] * WIDTH)


def _integers(value: int) -> Any:
    return ir.Constant(_INTEGERS_IR, [value] * WIDTH)


def _add(builder: Any, left: Any, right: Any) -> Any:
    return builder.fadd(left, right, flags=_FLAGS)


def _mul(builder: Any, left: Any, right: Any) -> Any:
    return builder.fmul(left, right, flags=_FLAGS)


def _select(builder: Any, left: Any, predicate: str, right: Any, yes: Any, no: Any) -> Any:
    """Selection: `yes` where left (predicate) right, else `no`; a NaN on either side means `no`."""
    return builder.select(builder.fcmp_ordered(predicate, left, right), yes, no)


def _polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """A polynomial in x; the coefficient of the highest power comes first."""
    value = _constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = _add(builder, _mul(builder, value, x), _constant(coefficient))
    return value


def _exp2_ir(builder: Any, y: Any) -> Any:
    """Power 2^y to about 1e-7 of itself; 0 below -127, infinity from 127.5, NaN for NaN."""
    lowest, highest = _constant(-127.0), _constant(128.0)
    y = _select(builder, y, "<", lowest, lowest, y)
    y = _select(builder, y, ">", highest, highest, y)
    # Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
    magic = _constant(1.5 * 2**23)
    shifted = builder.fadd(y, magic)
    fraction = builder.fsub(y, builder.fsub(shifted, magic))
    bits = builder.shl(builder.bitcast(shifted, _INTEGERS_IR), _integers(23))
    power = builder.bitcast(builder.add(bits, _integers(127 << 23)), _VECTOR_IR)
    # 2^f for |f| <= 1/2: the least maximal relative error of this degree that is exact at 0, 9e-8.
    coefficients = (
        0.001326472689948354,
        0.009671512660598687,
        0.05550733744243233,
        0.24022242084918438,
        0.6931469775984729,
        1.0,
    )
    return _mul(builder, _polynomial(builder, fraction, coefficients), power)


def _softplus_ir(builder: Any, z: Any) -> tuple[Any, Any]:
    """Values of softplus(z) and its derivative, the logistic function; neither overflows."""
    zero, one, two = _constant(0.0), _constant(1.0), _constant(2.0)
    magnitude = _select(builder, z, "<", zero, builder.fneg(z), z)
    w = _exp2_ir(builder, _mul(builder, magnitude, _constant(-1.4426950408889634)))  # exp(-|z|)
    # log(1 + w) = 2 artanh(s) with s = w / (2 + w) <= 1/3; artanh(s) / s in s^2, least maximal relative error, 4e-9.
    s = builder.fdiv(w, _add(builder, two, w))
    coefficients = (
        0.1408916720537446,
        0.13980301432390357,
        0.20012455137216498,
        0.33333157341076186,
        1.0,
    )
    log1p = _mul(builder, _mul(builder, two, s), _polynomial(builder, _mul(builder, s, s), coefficients))
    value = _add(builder, _select(builder, z, ">", zero, z, zero), log1p)
    upper = builder.fdiv(one, _add(builder, one, w))
    return value, _select(builder, z, "<", zero, _mul(builder, w, upper), upper)


_float_pointer = types.CPointer(types.float32)


def _number_at(context: Any, builder: Any, source_type: Any, source: Any, place: Any) -> Any:
    """The address of a number of an array or behind a pointer."""
    if isinstance(source_type, types.Array):
        source = context.make_array(source_type)(context, builder, source).data
    return builder.gep(source, [place])


def _vector_at(context: Any, builder: Any, source_type: Any, source: Any, place: Any) -> Any:
    return builder.bitcast(_number_at(context, builder, source_type, source, place), _VECTOR_IR.as_pointer())


def _lane(index: int) -> Any:
    return ir.Constant(ir.IntType(32), index)


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """Address at which a contiguous float32 array begins.

    A kernel hands this on instead of the array: numba counts references at every call with an array, and threads that
    count references to the same array wait for each other. The array must outlive it: only for the kernel's arguments.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return _float_pointer(array), generate


@intrinsic
def load(typingctx: Any, source: Any, start: Any) -> Any:
    """The vector at start in a contiguous float32 array of one dimension or behind a pointer; no bounds are checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_vector_at(context, builder, signature.args[0], *args), align=4)

    return vector(source, types.intp), generate


@intrinsic
def store(typingctx: Any, target: Any, start: Any, value: Any) -> Any:
    """Writes the vector at start; see `load`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, start, value = args
        builder.store(value, _vector_at(context, builder, signature.args[0], target, start), align=4)
        return context.get_dummy_value()

    return types.void(target, types.intp, vector), generate


@intrinsic
def load_some(typingctx: Any, source: Any, start: Any, count: Any) -> Any:
    """The vector of the first 1 to WIDTH numbers at start, then zeros; see `load`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, start, count = args
        value = _constant(0.0)
        for lane in range(WIDTH):
            own = builder.icmp_signed("<", ir.Constant(count.type, lane), count)
            place = builder.add(start, builder.select(own, ir.Constant(start.type, lane), ir.Constant(start.type, 0)))
            number = builder.load(_number_at(context, builder, signature.args[0], source, place))
            number = builder.select(own, number, ir.Constant(ir.FloatType(), 0.0))
            value = builder.insert_element(value, number, _lane(lane))
        return value

    return vector(source, types.intp, types.intp), generate


@intrinsic
def store_some(typingctx: Any, target: Any, start: Any, count: Any, value: Any) -> Any:
    """Writes the first 1 to WIDTH numbers of a vector; see `store`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, start, count, value = args
        first = builder.extract_element(value, _lane(0))
        for lane in range(WIDTH):  # the lanes beyond write the first number again
            own = builder.icmp_signed("<", ir.Constant(count.type, lane), count)
            place = builder.add(start, builder.select(own, ir.Constant(start.type, lane), ir.Constant(start.type, 0)))
            number = builder.select(own, builder.extract_element(value, _lane(lane)), first)
            builder.store(number, _number_at(context, builder, signature.args[0], target, place))
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, vector), generate


@intrinsic
def splat(typingctx: Any, number: Any) -> Any:
    """A vector of WIDTH times the float32 number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.insert_element(ir.Constant(_VECTOR_IR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, ir.Constant(_VECTOR_IR, ir.Undefined), _integers(0))

    return vector(types.float32), generate


@intrinsic
def total(typingctx: Any, values: Any) -> Any:
    """The sum of a vector's numbers, float32, always in the same order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (values,) = args
        count = WIDTH
        while count > 1:
            count //= 2
            halves = [
                ir.Constant(ir.VectorType(ir.IntType(32), count), [start + i for i in range(count)])
                for start in (0, count)
            ]
            low, high = (builder.shuffle_vector(values, values, half) for half in halves)
            values = builder.fadd(low, high)
        return builder.extract_element(values, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), generate


@intrinsic
def exp2(typingctx: Any, y: Any) -> Any:
    """Vector of 2 to the power of every number, to about 1e-7; 0 below -127, infinity from 127.5, NaN for NaN."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _exp2_ir(builder, args[0])

    return vector(vector), generate


@intrinsic
def softplus(typingctx: Any, z: Any) -> Any:
    """Vectors of softplus of every number and of its derivative."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, signature.return_type, _softplus_ir(builder, args[0]))

    return types.UniTuple(vector, 2)(vector), generate


def _operation(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def operation(typingctx: Any, left: Any, right: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, *args)

        return vector(vector, vector), generate

    return operation


add = _operation(_add)
mul = _operation(_mul)


@overload(operator.add)
def _overload_add(left, right):  # numba wants the same signature, without types, as the lambda's
    if isinstance(left, VectorType) and isinstance(right, VectorType):
        return lambda left, right: add(left, right)
    return None


@overload(operator.mul)
def _overload_mul(left, right):
    if isinstance(left, VectorType) and isinstance(right, VectorType):
        return lambda left, right: mul(left, right)
    return None
