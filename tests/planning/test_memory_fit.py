"""The fit of the memory model finds the coefficients behind made-up measurements of the shapes that are measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import memory_fit
import numpy as np
import pytest
from memory_gpu import SHAPES

from nnunetv2_slicemamba.planning.memory import MemoryModel, count_sample, count_static

TRUE = MemoryModel(
    kept=2.6, transient=1.4, head=11.0, logit=41.0, voxel=5.0, weight=12.8, gradient=9.5, workspace=0.3 * 2**30
)


@pytest.fixture(scope="module")
def measured() -> list[memory_fit.Measured]:
    """The benchmark's shapes with what a machine of the TRUE coefficients would reserve."""
    result = []
    for shape in SHAPES:
        sample = count_sample(shape.patch, shape.channels, shape.classes, shape.arch_kwargs)
        static = count_static(shape.channels, shape.classes, shape.arch_kwargs, shape.supernet)
        counted = memory_fit.Measured(shape.name, shape.batch, sample, static, 0)
        result.append(replace(counted, reserved=counted.estimate(TRUE)))
    return result


def test_the_measured_shapes_are_of_all_kinds() -> None:
    assert len(SHAPES) >= 24
    assert {(shape.size, len(shape.patch)) for shape in SHAPES} == {(s, n) for s in "SML" for n in (2, 3)}
    assert sum(shape.supernet for shape in SHAPES) >= 8
    assert sum(shape.checkpointing for shape in SHAPES) >= 3
    assert {min(shape.batch for shape in SHAPES), max(shape.batch for shape in SHAPES)} == {2, 32}
    assert any(len(set(shape.arch_kwargs["strides"][0])) > 1 for shape in SHAPES)
    assert any(len(set(shape.patch)) > 1 for shape in SHAPES)


def test_the_fit_finds_the_coefficients_behind_the_measurements(measured: list[memory_fit.Measured]) -> None:
    found = memory_fit.fit(measured)
    assert np.abs(memory_fit.relative_errors(measured, found)).max() < 0.02
    for name in memory_fit.FITTED:
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.25), name
    # what no measurement tells is left alone
    assert found.context == MemoryModel().context


def test_noise_does_not_make_coefficients_negative(measured: list[memory_fit.Measured]) -> None:
    rng = np.random.default_rng(0)
    noisy = [replace(m, reserved=m.reserved * rng.uniform(0.8, 1.2)) for m in measured]
    found = memory_fit.fit(noisy)
    assert all(getattr(found, name) >= 0 for name in memory_fit.FITTED)
    errors = np.abs(memory_fit.relative_errors(noisy, found))
    assert errors.mean() < np.abs(memory_fit.relative_errors(noisy, MemoryModel())).mean()


def test_the_error_of_a_left_out_training_is_that_of_a_model_that_never_saw_it(
    measured: list[memory_fit.Measured],
) -> None:
    few = [*measured[:12], replace(measured[12], reserved=2 * measured[12].reserved)]
    errors = memory_fit.leave_one_out(few)
    # seen, it would have pulled the model towards itself
    assert errors[-1] == pytest.approx(-0.5, abs=0.05)


def test_the_command_prints_what_to_write_into_the_model(
    measured: list[memory_fit.Measured], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"name": m.name, "shape": {"batch": m.batch}, "sample": vars(m.sample), "static": vars(m.static)}
        | {"reserved": m.reserved, "outside": 2**29}
        for m in measured[:12]
    ]
    file = tmp_path / "measured.json"
    file.write_text(json.dumps({"rows": [*rows, {"name": "out of memory", "error": "too large"}]}))
    memory_fit.fit_file(file)
    printed = capsys.readouterr().out
    assert "context: float = 0.500 * 2**30" in printed
    for name in memory_fit.FITTED:
        assert f"    {name}: float = " in printed
    file.write_text(json.dumps({"rows": rows[:5]}))
    with pytest.raises(SystemExit, match="has 5 measured trainings, a fit of 9 coefficients needs more"):
        memory_fit.fit_file(file)
