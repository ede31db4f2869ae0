"""nnU-Net's network with fused units trains from CUDA graphs as the plain one does."""

import copy

import pytest
import torch

from nnunetv2_slicemamba.trainers.fused_units import fuse_units
from nnunetv2_slicemamba.trainers.recorded_network import RecordedNetwork
from tests.trainers.test_fused_units import PlainConvUNet, network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("dims", [2, 3])
def test_replayed_steps_of_fused_units_follow_those_of_the_plain_network(dims):
    plain = network(PlainConvUNet, dims).cuda()
    fused = copy.deepcopy(plain)
    assert fuse_units(fused) == 4
    recorded = RecordedNetwork(fused)
    losses: list[list[float]] = [[], []]
    for number, (made, holder) in enumerate(((plain, plain), (recorded, fused))):
        torch.manual_seed(2)
        optimizer = torch.optim.SGD(holder.parameters(), 0.01, momentum=0.9, weight_decay=3e-5)
        for _ in range(5):
            x = torch.randn(2, 1, *[32] * dims, device="cuda")
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda"):
                loss = (made(x).float() - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses[number].append(float(loss))
    assert recorded.graph is not None, recorded.reason
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    assert losses[0][-1] < losses[0][0]
