"""No scan and no block on a GPU: right results, also by CUDA graphs, in less time. Needs an NVIDIA GPU."""

from __future__ import annotations

import copy
import time

import pytest
import torch

from nnunetv2_slicemamba.nets import SliceMambaSupernet, SliceMambaUNet
from nnunetv2_slicemamba.ops.cuda_scan import unavailable_reason
from nnunetv2_slicemamba.search.evaluation.blockwise import BlockwiseSupernet
from nnunetv2_slicemamba.search.evaluation.step_costs import measure_step_costs
from nnunetv2_slicemamba.slicing.candidates import NO_BLOCK, NO_SCAN, wide_candidates
from tests.gpu.test_cuda_bss import BFLOAT, HALF, SINGLE, TOLERANCE, make, run
from tests.gpu.test_graphs import batches, build

REASON = unavailable_reason(torch.device("cuda"), torch.float16)
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the CUDA backend cannot run: {REASON}")
DEVICE = torch.device("cuda")
LARGE = {"input_channels": 3, "num_classes": 2, "n_stages": 3, "features_per_stage": [96, 192, 384]}
LARGE |= {"strides": [[4, 4], [2, 2], [2, 2]], "n_blocks_per_stage": [2, 2, 4], "n_blocks_per_stage_decoder": [2, 2, 2]}


@pytest.mark.parametrize("dtype", [SINGLE, HALF, BFLOAT], ids=str)
@pytest.mark.parametrize("name", ["2d", "odd channels", "one token", "3d", "many tokens", "wide"])
def test_a_block_without_scans_equals_the_composite_one_in_float64(name: str, dtype: torch.dtype) -> None:
    module, x, dout = make(name)
    module.thickness = ()
    assert module.fused(x) is not None
    got = {key: value for key, value in run(module, x, dout, dtype).items() if value is not None}
    wanted = run(copy.deepcopy(module).double(), x.double(), dout.double(), torch.float64)
    assert not {"x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs"} & set(got)
    for key, value in got.items():
        error = (value.double() - wanted[key]).norm() / max(wanted[key].norm().item(), 1e-12)
        assert error < TOLERANCE[dtype], (key, error)


@pytest.mark.parametrize("dtype", [SINGLE, HALF, BFLOAT], ids=str)
@pytest.mark.parametrize("name", ["2d", "odd channels", "one token", "3d", "many tokens", "wide"])
def test_a_block_that_reads_along_one_axis_equals_the_composite_one_in_float64(name: str, dtype: torch.dtype) -> None:
    module, x, dout = make(name)
    for axis in range(module.n_dims):
        module.thickness = tuple(0 if i == axis else 3 for i in range(module.n_dims))
        assert module.fused(x) is not None
        got = run(module, x, dout, dtype)
        wanted = run(copy.deepcopy(module).double(), x.double(), dout.double(), torch.float64)
        for key, value in got.items():
            error = (value.double() - wanted[key]).norm() / max(wanted[key].norm().item(), 1e-12)
            assert error < TOLERANCE[dtype], (axis, key, error)


def test_folds_with_different_choices_predict_by_graphs_of_their_own() -> None:
    one, x = build().eval(), batches(1)[0]
    slicings = [[NO_SCAN, (2, 4), NO_BLOCK] * 2 + [(1, 1)], [NO_BLOCK, NO_SCAN, (8, 8)] * 2 + [NO_SCAN]]
    folds = []
    for slicing in slicings:
        fold = copy.deepcopy(one)
        fold.set_slicing(slicing)
        folds.append(fold)
    with torch.no_grad(), torch.autocast("cuda"):
        wanted = []
        for fold in folds:
            fold.graphs.inference = False
            wanted.append(fold(x)[0])
        assert not torch.equal(wanted[0], wanted[1])
        for _ in range(5):
            for fold, expected in zip(folds, wanted, strict=True):
                one.load_state_dict(fold.state_dict())
                torch.testing.assert_close(one(x)[0], expected, rtol=2e-2, atol=2e-2)
    assert len(one.graphs.made) == 2


def seconds(run) -> float:
    for _ in range(4):
        run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(10):
        run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def test_what_is_left_out_saves_time_in_training_search_and_inference() -> None:
    x = torch.randn(8, 3, 256, 256, device="cuda")
    candidates = ((2, 4), NO_SCAN, NO_BLOCK)
    times: dict[str, list[float]] = {"training": [], "inference": [], "search": []}
    supernet = SliceMambaSupernet(**LARGE, candidates=candidates).cuda().eval()
    blockwise = BlockwiseSupernet(supernet)
    for index, candidate in enumerate(candidates):
        network = SliceMambaUNet(**LARGE, slicing=[candidate] * supernet.n_blocks).cuda().train()
        with torch.autocast("cuda"):
            network.record_training(x)
            times["training"].append(seconds(lambda network=network: network(x).sum().backward()))
            network.graphs.drop()
            network.eval()
            with torch.no_grad():
                times["inference"].append(seconds(lambda network=network: network(x)))

                def path(index=index) -> None:
                    features = blockwise.begin(x)
                    for block in range(supernet.n_blocks):
                        features = blockwise.block(block, index, features)
                    blockwise.finish(features)

                times["search"].append(seconds(path))
    for kind, (scan, without_scan, without_block) in times.items():
        print(kind, scan, without_scan, without_block)
        assert scan > 1.05 * without_scan, kind
        assert without_scan > 1.05 * without_block, kind


def test_every_choice_of_every_block_gets_a_cost() -> None:
    network, candidates = SliceMambaUNet(**LARGE, deep_supervision=True).cuda(), wide_candidates(2)
    costs = measure_step_costs(network, candidates, (8, 3, 256, 256), DEVICE)
    assert len(costs.blocks) == network.n_blocks
    assert 0 < costs.rest < costs.fixed
    for block in costs.blocks:
        by_candidate = dict(zip(candidates, block, strict=True))
        assert by_candidate.pop(NO_BLOCK) == 0
        assert all(0 < cost < costs.fixed for cost in by_candidate.values())
