"""A supernet trained by two processes is the one that a single process trains on both batches; they stop together.

nnU-Net's own trainer knows several processes only on GPUs, so these are the trainer's averages, with gloo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forked import forked
from tests.trainers import ddp_step

pytestmark = pytest.mark.xdist_group("forked")
Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The folder that two processes wrote to, and their results."""
    folder = tmp_path_factory.mktemp("processes")
    store, out = str(folder / "store"), str(folder / "result")
    started = [
        forked().Process(target=ddp_step.take_part, args=(rank, store, out)) for rank in range(ddp_step.PROCESSES)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0
    return folder, [torch.load(f"{out}.{rank}") for rank in range(ddp_step.PROCESSES)]


@pytest.mark.timeout(120)
def test_two_processes_follow_the_same_paths_to_the_weights_of_one_and_stop_together(
    ended: tuple[Path, Results],
) -> None:
    folder, results = ended
    # one of them got a signal in step 2: both stopped after the next one, and the first wrote the last finished epoch
    assert [result["stopped"] for result in results] == [(3, 143), (3, 143)]
    assert [file.name for file in folder.glob("*.saved")] == ["result.0.saved"]
    assert (folder / "result.0.saved").read_text() == f"{Path('folder', 'checkpoint_latest.pth')} 6"

    supernet = ddp_step.make_network()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    paths = ddp_step.train(supernet, supernet, slice(None))
    assert [result["paths"] for result in results] == [paths, paths]
    moved = 0
    for key, value in supernet.state_dict().items():
        assert torch.equal(results[0]["weights"][key], results[1]["weights"][key]), key
        assert torch.allclose(results[0]["weights"][key], value, atol=2e-5), key
        moved += not torch.allclose(value, before[key], atol=2e-4)
    assert moved > 20


@pytest.mark.timeout(120)
def test_a_loss_that_is_nan_in_one_process_ends_both_with_one_message(ended: tuple[Path, Results]) -> None:
    _, results = ended
    one, other = (result["failed"] for result in results)
    assert one == other
    step, message, logged, sent = one
    assert (step, logged, sent) == (3, [message], 4), "after the step behind it, and no step sent a second message"
    assert message.startswith("loss nan in iteration 6 (epoch 1) with network SliceMambaSupernet: the input batch is")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ddp_step.LOSSES)
def test_the_shared_loss_is_that_of_nnunet_and_of_one_process(kind: str, ended: tuple[Path, Results]) -> None:
    _, results = ended
    for theirs, ours, _ in (result["losses"][kind] for result in results):
        assert torch.allclose(theirs[0], ours[0], rtol=1e-6, atol=1e-7)
        for one, other in zip(theirs[1], ours[1], strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
            assert one.any() == other.any()
    # averaged over equal shares, values and gradients are those of the whole batch, whose Dice they share
    loss = ddp_step.make_loss(kind, ddp=False)
    if kind != "ignored":  # whose cross entropy is a mean over each share's other voxels
        value, gradients = ddp_step.loss_and_gradients(kind, loss, slice(None))
        shares = [result["losses"][kind][1] for result in results]
        assert torch.allclose(torch.stack([share[0] for share in shares]).mean(), value, rtol=1e-6, atol=1e-7)
        for i, gradient in enumerate(gradients):
            together = torch.cat([share[1][i] for share in shares]) / ddp_step.PROCESSES
            assert torch.allclose(together, gradient, rtol=1e-5, atol=1e-7)


def test_the_shared_loss_sends_one_message_a_step_for_shares_of_any_size(ended: tuple[Path, Results]) -> None:
    _, results = ended
    for share, result in zip(ddp_step.UNEQUAL, results, strict=True):
        assert result["sent"] == 2 * len(ddp_step.LOSSES)
        for kind in ddp_step.LOSSES:
            ours = result["losses"][kind][2]
            own = ddp_step.loss_and_gradients(kind, ddp_step.make_loss(kind, ddp=False, weight_dice=0), share)
            dice = ddp_step.loss_and_gradients(kind, ddp_step.make_loss(kind, ddp=False, ce=0), slice(None))
            assert torch.allclose(ours[0], own[0] + dice[0], rtol=1e-6, atol=1e-7)
            for gradient, one, other in zip(ours[1], own[1], dice[1], strict=True):
                assert torch.allclose(gradient, one + ddp_step.PROCESSES * other[share], rtol=1e-5, atol=1e-7)
