"""A path's counts are nnU-Net's, and the same whatever is kept, however it is batched, and in whichever order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn, region_or_label_to_mask
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_slicemamba.nets import SliceMambaSupernet
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import select
from nnunetv2_slicemamba.search import SearchSettings, propose
from nnunetv2_slicemamba.search.evaluation.blockwise import BlockwiseSupernet
from nnunetv2_slicemamba.search.evaluation.counting import Classes, count, segmentation_of
from nnunetv2_slicemamba.search.evaluation.one_by_one import OneByOne
from nnunetv2_slicemamba.search.evaluation.path_evaluation import PathEvaluation
from nnunetv2_slicemamba.search.evaluation.prefix_cache import Features, PrefixCache, shared_blocks
from nnunetv2_slicemamba.search.evaluation.supernet_fold import SupernetFold
from nnunetv2_slicemamba.search.evaluation.windows import make_batches, make_case
from nnunetv2_slicemamba.search.records import tasks_of
from nnunetv2_slicemamba.trainers import TRAINERS

CPU = torch.device("cpu")
PATCH = {2: (8, 12), 3: (4, 8, 8)}
# smaller than the patch on an axis, as large, larger on one and on all axes; two alike
SIZES = {
    2: [(1, 8, 12), (1, 7, 12), (1, 8, 12), (1, 13, 9), (1, 20, 30)],
    3: [(4, 8, 8), (3, 8, 8), (4, 8, 11), (9, 9, 9)],
}
LABELS = Classes(((1,), (2,)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Commands that ran before in this process may have asked for more, which costs tiny networks much time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


HYBRID = {"stem_features": [4, 6], "skip": "concatenate"}


def tiny_supernet(n_dims: int = 2, share_weights: bool = False, **options: Any) -> SliceMambaSupernet:
    """Three stages, seven blocks; with scan parameters that make the paths differ."""
    torch.manual_seed(0)
    # two steps to the first S3 stage, where there is a stem
    first = [1, 4 if "stem_features" in options else 2, 2][-n_dims:]
    network = SliceMambaSupernet(
        1,
        3,
        3,
        [8, 12, 16],
        [first, [2] * n_dims, [1] + [2] * (n_dims - 1)],
        [1, 2, 1],
        [1, 1, 1],
        d_state=2,
        share_weights=share_weights,
        **options,
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.mul_(30)
    return network.eval()


def cases(n_dims: int):
    rng = np.random.default_rng(1)
    made = []
    for sizes in SIZES[n_dims]:
        data = torch.from_numpy(rng.normal(size=(1, *sizes)).astype(np.float32))
        made.append(make_case(data, rng.integers(-1, 4, (1, *sizes)).astype(np.int16), PATCH[n_dims], 0.5))
    return made


def paths(n: int = 12, n_candidates: int = 4, seed: int = 0):
    """Some with many first blocks in common."""
    found = propose(SearchSettings(population=n, seed=seed), [n_candidates] * 7, 0, [])
    return [*found, *((*found[0][:k], *found[1][k:]) for k in range(1, 7))]


def counts_of(evaluation: PathEvaluation, architectures) -> list[np.ndarray]:
    done = {counted.task.index: counted.counts for counted in evaluation.count_paths(tasks_of(architectures))}
    assert sorted(done) == list(range(len(architectures)))
    return [done[i] for i in range(len(architectures))]


@pytest.mark.parametrize("options", [{}, HYBRID, {"embedding_skip": True}], ids=["paper", "hybrid", "embedding skip"])
@pytest.mark.parametrize("share_weights", [False, True])
@pytest.mark.parametrize("n_dims", [2, 3])
@torch.inference_mode()
def test_block_by_block_is_the_network_bit_by_bit(n_dims: int, share_weights: bool, options: dict[str, Any]) -> None:
    network = tiny_supernet(n_dims, share_weights, **options)
    blockwise = BlockwiseSupernet(network)
    data = torch.randn(2, 1, *(8, 16, 8)[3 - n_dims :])
    logits = []
    for architecture in paths(3, len(network.candidates)):
        network.set_architecture(architecture)
        expected = network(data)
        features = blockwise.begin(data)
        for number, candidate in enumerate(architecture):
            features = blockwise.block(number, candidate, features)
        logits.append(blockwise.finish(features))
        assert torch.equal(logits[-1], expected)
    assert not torch.equal(logits[0], logits[1]), "the paths must differ for this test to say anything"


@pytest.mark.parametrize(("n_dims", "options"), [(2, {}), (3, {}), (2, HYBRID)], ids=["2d", "3d", "hybrid"])
def test_what_is_kept_changes_no_count_and_saves_blocks(n_dims: int, options: dict[str, Any]) -> None:
    network, architectures = tiny_supernet(n_dims, **options), paths()
    fresh = PathEvaluation(network, cases(n_dims), LABELS, PATCH[n_dims], CPU, cache_bytes=0)
    expected = counts_of(fresh, architectures)
    assert len({c.tobytes() for c in expected}) > 6, "the paths must differ for this test to say anything"
    n_batches = fresh.blocks_computed // (7 * len(architectures))
    assert fresh.blocks_computed == n_batches * 7 * len(architectures)
    saved = []
    for capacity in (3_000, 60_000, 2**30):
        evaluation = PathEvaluation(network, cases(n_dims), LABELS, PATCH[n_dims], CPU, cache_bytes=capacity)
        # in another order, twice, and again one by one
        assert [c.tolist() for c in counts_of(evaluation, architectures[::-1])[::-1]] == [c.tolist() for c in expected]
        saved.append(fresh.blocks_computed - evaluation.blocks_computed)
        alone = [counts_of(evaluation, [architecture])[0].tolist() for architecture in architectures]
        assert alone == [c.tolist() for c in expected]
        assert evaluation.cache.used <= capacity
    distinct = len({a[:k] for a in architectures for k in range(1, 8)})
    assert 0 <= saved[0] < saved[2]
    assert saved[1] <= saved[2]
    # with room for everything, no first blocks are computed twice
    assert fresh.blocks_computed - saved[2] == n_batches * distinct


def test_counts_do_not_depend_on_what_shares_a_batch() -> None:
    """But for single voxels whose logits are equal up to rounding."""
    evaluation = PathEvaluation(tiny_supernet(), cases(2), LABELS, PATCH[2], CPU)
    together = counts_of(evaluation, paths(3))
    evaluation._batch_size = 1
    evaluation.cache.clear()
    evaluation._make_batches()
    for one, other in zip(together, counts_of(evaluation, paths(3)), strict=True):
        assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("n_dims", [2, 3])
def test_the_windows_are_nnunets(n_dims: int) -> None:
    predictor = nnUNetPredictor(tile_step_size=0.5, device=CPU)
    predictor.configuration_manager = SimpleNamespace(patch_size=PATCH[n_dims])
    made = cases(n_dims)
    for case in made:
        theirs = predictor._internal_get_sliding_window_slicers(case.data.shape[1:])
        assert [(slice(None), *window) for window in case.windows] == [tuple(slicer) for slicer in theirs]
        assert case.data[(slice(None), *case.crop)].shape[1:] == case.truth.shape
    volume = make_case(torch.zeros(1, 3, 8, 20), np.zeros((1, 3, 8, 20), np.int16), PATCH[2], 0.5)
    theirs = predictor_of(PATCH[2])._internal_get_sliding_window_slicers(volume.data.shape[1:])
    assert [(slice(None), *window) for window in volume.windows] == [tuple(slicer) for slicer in theirs]


def predictor_of(patch: tuple[int, ...]) -> nnUNetPredictor:
    predictor = nnUNetPredictor(tile_step_size=0.5, device=CPU)
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    return predictor


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_window_is_in_one_batch_and_those_of_a_case_in_order(size: int) -> None:
    made = cases(2)
    batches = make_batches(made, size)
    windows = [pair for batch in batches for pair in batch.windows]
    assert sorted(windows) == [(i, w) for i, case in enumerate(made) for w in range(len(case.windows))]
    cut = [pair for batch in batches if not batch.whole for pair in batch.windows]
    assert cut == sorted(cut)
    assert all(len(batch.windows) <= size for batch in batches)
    for batch in batches:
        shapes = {(made[case].truth.shape, len(made[case].windows)) for case, _ in batch.windows}
        assert not batch.whole or (len(shapes) == 1 and next(iter(shapes))[1] == 1)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "a": 1, "b": 2}, None),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None),
        ({"background": 0, "whole": [1, 2], "core": 2}, [1, 2]),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2]),
    ],
)
def test_labels_regions_and_ignored_voxels_are_counted_as_by_nnunet(labels: dict, order: list | None) -> None:
    manager = LabelManager(labels, order)
    classes = Classes.of(manager)
    torch.manual_seed(0)
    logits = torch.randn(2, manager.num_segmentation_heads, 6, 7)
    truth = torch.randint(-1, 4 if manager.has_ignore_label else 3, (2, 6, 7))
    predicted = segmentation_of(logits, classes)
    counted = count(predicted, truth, classes)
    regions = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    for i in range(2):
        theirs = manager.convert_logits_to_segmentation(logits[i]).numpy()
        assert np.array_equal(predicted[i].numpy(), theirs)
        target = truth[i].numpy()
        ignored = target == manager.ignore_label if manager.has_ignore_label else None
        for c, region in enumerate(regions):
            masks = (region_or_label_to_mask(array, region) for array in (target, theirs))
            assert counted[i, c].tolist() == list(compute_tp_fp_fn_tn(*masks, ignored)[:3])


def test_a_cut_image_is_stitched_as_nnunet_stitches_it() -> None:
    """Its predictor adds in half precision; few voxels may fall on the other side."""
    network, made = tiny_supernet(), cases(2)
    manager = LabelManager({"background": 0, "a": 1, "b": 2}, None)
    predictor = predictor_of(PATCH[2])
    predictor.network, predictor.label_manager = network, manager
    predictor.use_mirroring, predictor.use_gaussian = False, True
    architecture = paths(2)[0]
    network.set_architecture(architecture)
    (counts,) = counts_of(PathEvaluation(network, made, Classes.of(manager), PATCH[2], CPU), [architecture])
    for i, case in enumerate(made):
        original = case.data[(slice(None), *case.crop)]
        theirs = manager.convert_logits_to_segmentation(predictor.predict_sliding_window_return_logits(original))
        expected = count(theirs[None], case.truth[None], LABELS)[0].numpy()
        assert np.abs(counts[i] - expected).max() <= 2, SIZES[2][i]


def test_the_cache_holds_no_more_than_its_bytes_and_counts_shared_tensors_once() -> None:
    cache = PrefixCache(1000)
    shared = torch.zeros(100)  # 400 bytes
    cache.keep(0, (0,), Features(shared))
    cache.keep(0, (0, 1), Features(torch.zeros(50), (shared,)))
    assert cache.used == 600
    assert cache.longest(0, (0, 1, 2))[0] == 2
    assert cache.longest(1, (0, 1, 2)) == (0, None)
    cache.keep(0, (0, 2), Features(torch.zeros(100), (shared,)))
    assert (cache.used, len(cache)) == (1000, 3)
    cache.longest(0, (0, 1, 2))
    cache.keep(0, (3,), Features(torch.zeros(25)))
    # (0,) went first, its tensor stayed with the others; then (0, 2), which had not been used for longest
    assert (cache.used, len(cache)) == (700, 2)
    assert cache.longest(0, (0, 2, 2)) == (0, None)
    cache.keep(0, (2,), Features(torch.zeros(500)))
    assert cache.longest(0, (2,)) == (0, None), "it is larger than all"
    assert cache.used <= 1000
    cache.clear()
    assert cache.used == 0


def test_what_the_next_architectures_begin_with_goes_last() -> None:
    cache = PrefixCache(800)
    cache.expect([(0, 0, 0), (0, 0, 1), (0, 1, 1)])
    assert cache.is_expected((0, 0))
    assert cache.is_expected((0,))
    assert not cache.is_expected((0, 0, 0))
    for prefix in ((0,), (0, 0), (5,), (6,)):
        cache.keep(0, prefix, Features(torch.zeros(100)))
    assert cache.longest(0, (0, 0, 1))[0] == 2
    assert shared_blocks((0, 1, 2), (0, 1, 3)) == 2
    assert shared_blocks((0, 1), (0, 1)) == 2


def test_a_stopped_evaluation_begins_no_further_path() -> None:
    evaluation = PathEvaluation(tiny_supernet(), cases(2), LABELS, PATCH[2], CPU)
    done = 0

    def go_on() -> bool:
        return done < 3

    for _ in evaluation.count_paths(tasks_of(paths()), go_on):
        done += 1
    assert done == 3


def test_what_is_asked_for_late_is_counted_as_well() -> None:
    evaluation = PathEvaluation(tiny_supernet(), cases(2), LABELS, PATCH[2], CPU)
    expected = counts_of(evaluation, paths())
    tasks, begun, found = tasks_of(paths()), list[int](), dict[int, np.ndarray]()
    left = [tasks[5:9], tasks[9:]]

    def more():
        begun.append(len(found))
        return left.pop(0) if left else []

    for counted in evaluation.count_paths(tasks[:5], more=more):
        found[counted.task.index] = counted.counts
    assert begun == [5, 9, len(expected)], "not before what there was had been begun"
    assert sorted(found) == list(range(len(expected)))
    assert all((found[i] == counts).all() for i, counts in enumerate(expected))
    left.append(tasks[3:])
    stopped = list(evaluation.count_paths(tasks[:3], lambda: len(left) > 0, more))
    assert len(stopped) == 3, "what comes late is not begun either once it is to stop"


def test_a_folds_fitness_is_that_of_nnunets_predictor(workspace: Path) -> None:
    selection = select("901", "2d", "0", "nnUNetSliceMambaSPlans")
    name = "SliceMambaSupernetTrainer_1epoch"
    description = json.loads((selection.preprocessed_folder / "dataset.json").read_text())
    torch.manual_seed(0)
    trainer = TRAINERS[name]({**selection.plans, "continue_training": False}, "2d", 0, description, CPU)
    trainer.initialize()
    trainer.save_checkpoint(str(selection.fold_folder(name) / "checkpoint_final.pth"))
    fold = SupernetFold(SupernetFolder(selection, name), CPU)
    architectures = propose(SearchSettings(population=4, seed=1), [4] * selection.n_blocks, 0, [])
    found = {done.task.index: done.evaluation for done in fold.evaluate(tasks_of(architectures))}
    nnunet = OneByOne.of_fold(fold)
    for position, architecture in enumerate(architectures):
        assert fold(architecture) == found[position]
        assert nnunet(architecture).fitness == pytest.approx(found[position].fitness, abs=2e-3)
    assert found[0].fitness > 0


def test_too_little_memory_costs_what_is_kept_then_the_size_of_batches_and_no_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluation = PathEvaluation(tiny_supernet(), cases(2), LABELS, PATCH[2], CPU)
    expected = counts_of(evaluation, paths(2))
    begin, sizes = BlockwiseSupernet.begin, []

    def with_little_memory(self: BlockwiseSupernet, data: torch.Tensor) -> Features:
        sizes.append((evaluation.cache.capacity > 0, len(data)))
        if len(data) > 3 or evaluation.cache.capacity:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return begin(self, data)

    monkeypatch.setattr(BlockwiseSupernet, "begin", with_little_memory)
    evaluation.cache.clear()
    for one, other in zip(expected, counts_of(evaluation, paths(2)), strict=True):
        assert np.abs(one - other).max() <= 1
    assert sizes[0][0], "it had kept features"
    assert sizes[-1] == (False, 3) or sizes[-1][1] < 3

    def without_memory(self: BlockwiseSupernet, data: torch.Tensor) -> Features:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(BlockwiseSupernet, "begin", without_memory)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        counts_of(evaluation, paths(2))
