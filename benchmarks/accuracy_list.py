"""Which candidates does `accuracy.py` compare, and what was expected of each before it ran?"""

from __future__ import annotations

from dataclasses import replace

from accuracy_runs import STOCK, Candidate

NNUNET_TRAINER = "nnUNetTrainer_20epochs"
_NNUNET = {"trainer": NNUNET_TRAINER, "slicing": None}

_PLAIN = (
    Candidate("stock", "0.89 on ISIC and 0.866 on the hippocampus, as measured before.", planner=STOCK, **_NNUNET),
    Candidate(
        "resenc-m",
        "Within 0.005 of stock: its gains show on large datasets and long trainings.",
        planner="ResEncM",
        **_NNUNET,
    ),
    Candidate("s", "0.01 below M: a quarter of the weights, the same receptive field.", planner="S"),
    Candidate("m", "As by hand, 0.016 and 0.027 (hippocampus) below stock: tokens of 4 voxels blur outlines."),
    Candidate("l", "Equal to M within 0.005: 320 images do not feed it in 20 epochs.", planner="L"),
    Candidate(
        "m-sgd",
        "0.05 below M: scan parameters have gradients of very different sizes, which SGD does not even out.",
        trainer="SliceMambaTrainerSgd",
    ),
    Candidate(
        "m-rate3e-4",
        "0.01 below M: with 5,000 iterations a third of the rate trains too little.",
        trainer="SliceMambaTrainerRate3e4",
    ),
    Candidate("m-rate5e-4", "Equal to M within 0.005: between 3e-4 and 1e-3.", trainer="SliceMambaTrainerRate5e4"),
    Candidate(
        "m-rate2e-3",
        "0.005 above M: short trainings like high rates, and the warm-up keeps the start stable.",
        trainer="SliceMambaTrainerRate2e3",
    ),
    Candidate("m-decay5e-2", "Equal to M within 0.003: 20 epochs hardly overfit.", trainer="SliceMambaTrainerDecay5e2"),
    Candidate("m-nowarmup", "0.005 below M: the first steps of AdamW are large.", trainer="SliceMambaTrainerNoWarmUp"),
    Candidate(
        "m-warmup1000",
        "0.005 below M: a fifth of the training at lower rates.",
        trainer="SliceMambaTrainerWarmUp1000",
    ),
    Candidate(
        "m-clip1",
        "0.003 above M: AdamW does not care for the gradients' size, but outliers reach its moments.",
        trainer="SliceMambaTrainerClip1",
    ),
    Candidate("m-noclip", "Equal to M: norms above 12 are rare.", trainer="SliceMambaTrainerNoClip"),
    Candidate(
        "m-nodeep",
        "0.005 below M: coarse outputs reach the deep stages early, which short trainings need.",
        trainer="SliceMambaTrainerNoDeep",
    ),
    Candidate(
        "m-droppath0",
        "0.01 above M: stochastic depth slows 20 epochs and guards against overfitting that does not come.",
        changes={"drop_path_rate": 0.0},
    ),
    Candidate("m-droppath0_1", "0.005 above M, half of what none gives.", changes={"drop_path_rate": 0.1}),
    Candidate("m-dstate8", "Equal to M within 0.003, a little faster.", changes={"d_state": 8}),
    Candidate("m-dstate32", "Equal to M within 0.003, a little slower.", changes={"d_state": 32}),
    Candidate("m-expand1", "0.005 below M: half the channels in every scan.", changes={"expand": 1}),
    Candidate(
        "m-shallow",
        "0.003 below M and a third faster: seven of the 22 blocks fewer, all at low resolution.",
        changes={"n_blocks_per_stage": [2, 2, 2, 2]},
    ),
    Candidate(
        "m-high",
        "0.005 above M: more blocks where the resolution is high, in the decoder above all.",
        changes={"n_blocks_per_stage": [3, 3, 6, 2], "n_blocks_per_stage_decoder": [1, 2, 3, 3]},
    ),
    Candidate(
        "m-ema",
        "0.003 above M: the rate falls to 0 by itself, which does most of what averaging does.",
        trainer="SliceMambaTrainerEma",
    ),
    Candidate(
        "m-concatenate",
        "0.002 above M: the decoder may weigh what the encoder hands over.",
        changes={"skip": "concatenate"},
    ),
    Candidate(
        "m-embeddingskip",
        "0.002 above M: the embedding's tokens know the outlines no better than 4 voxels.",
        changes={"embedding_skip": True},
    ),
    Candidate(
        "m-supernet",
        "0.05 below M on the path 2x4: every path gets a fraction of the iterations.",
        trainer="SliceMambaSupernetTrainer_20epochs",
        slicing=None,
    ),
    Candidate("m-searched", "Equal to M within 0.003: slicings hardly differ.", slicing=None, supernet="m-supernet"),
    Candidate(
        "m-inherit",
        "0.005 above M: it has seen twice the data, half of it with other slicings.",
        trainer="SliceMambaInheritTrainer_20epochs",
        slicing=None,
        supernet="m-supernet",
    ),
)


def _hybrid_of(name: str, prediction: str) -> Candidate:
    """A candidate of M with the same setting on M's hybrid."""
    (plain,) = (candidate for candidate in _PLAIN if candidate.name == name)
    hybrid = f"m-hybrid-{name.removeprefix('m-')}"
    return replace(plain, name=hybrid, prediction=prediction, planner="HybridM")


CANDIDATES = (
    *_PLAIN,
    Candidate(
        "m-hybrid",
        "0.01 above M on ISIC, 0.02 on the hippocampus: convolutions at full resolution draw the outlines.",
        planner="HybridM",
    ),
    Candidate(
        "l-hybrid",
        "0.002 above M's hybrid: wider S3 stages, the same convolutions. On folds that did not choose it half of the "
        "0.0054 that it gained over nnU-Net's default on fold 0 of ISIC, and on the hippocampus 0.004.",
        planner="HybridL",
    ),
    Candidate("s-hybrid", "0.005 below M's hybrid: the outlines come from the convolutions.", planner="HybridS"),
    Candidate(
        "l-hybrid-droppath0_4",
        "0.002 above L's hybrid on ISIC: it has the most weights to fit 320 images with; equal within 0.002 on the "
        "hippocampus. Again, and on other folds, equal to L's hybrid within 0.003: its first training was luck.",
        planner="HybridL",
        changes={"drop_path_rate": 0.4},
    ),
    Candidate(
        "m-hybrid-droppath0",
        "0.005 above M's hybrid: stochastic depth slows 20 epochs, and the convolutions have none.",
        planner="HybridM",
        changes={"drop_path_rate": 0.0},
    ),
    Candidate(
        "m-hybrid-droppath0_4",
        "0.002 above M's hybrid on ISIC, 0.002 below it on the hippocampus: twice the stochastic depth, for networks "
        "that fit 320 images in a few epochs.",
        planner="HybridM",
        changes={"drop_path_rate": 0.4},
    ),
    Candidate(
        "s-hybrid-droppath0_4",
        "0.002 above S's hybrid on ISIC: that and M's with 0.4 each have fewer bad cases than M's.",
        planner="HybridS",
        changes={"drop_path_rate": 0.4},
    ),
    Candidate(
        "m-hybrid-decay5e-2",
        "0.001 above M's hybrid on ISIC: weights shrink by half over the training at most.",
        planner="HybridM",
        trainer="SliceMambaTrainerDecay5e2",
    ),
    Candidate(
        "m-hybrid-rate2e-3",
        "0.003 above M's hybrid: short trainings like high rates.",
        planner="HybridM",
        trainer="SliceMambaTrainerRate2e3",
    ),
    Candidate(
        "m-hybrid-sgd",
        "0.02 below M's hybrid: its convolutions are nnU-Net's and like SGD, its scans do not.",
        planner="HybridM",
        trainer="SliceMambaTrainerSgd",
    ),
    Candidate(
        "m-hybrid-ema",
        "Equal to M's hybrid within 0.002: the rate falls to 0 by itself.",
        planner="HybridM",
        trainer="SliceMambaTrainerEma",
    ),
    Candidate(
        "m-hybrid-nodeep",
        "0.003 below M's hybrid: as without the stem.",
        planner="HybridM",
        trainer="SliceMambaTrainerNoDeep",
    ),
    Candidate(
        "m-hybrid-concatenate",
        "0.002 above M's hybrid: as without the stem.",
        planner="HybridM",
        changes={"skip": "concatenate"},
    ),
    Candidate(
        "m-hybrid-sampledice",
        "0.003 above M's hybrid on ISIC: the metric is a mean over cases, and pooled over a batch a lost small lesion "
        "costs nothing; equal on the hippocampus, whose plans have it already.",
        planner="HybridM",
        trainer="SliceMambaTrainerSampleDice",
    ),
    Candidate(
        "s-hybrid-sampledice",
        "0.003 above S's hybrid on ISIC, for M's reason: its mean hangs on one case that it all but loses; equal on "
        "the hippocampus.",
        planner="HybridS",
        trainer="SliceMambaTrainerSampleDice",
    ),
    _hybrid_of(
        "m-rate3e-4",
        "0.01 below M's hybrid: with 5,000 iterations a third of the rate trains too little.",
    ),
    _hybrid_of(
        "m-rate5e-4",
        "Equal to M's hybrid within 0.003: on ISIC it fits the training images early enough to afford half the rate.",
    ),
    _hybrid_of(
        "m-nowarmup",
        "0.002 below M's hybrid: the first steps of AdamW are large, the convolutions' norms bear them.",
    ),
    _hybrid_of(
        "m-clip1",
        "Equal to M's hybrid within 0.002: AdamW evens out the gradients' size, and outliers are rare.",
    ),
    _hybrid_of(
        "m-noclip",
        "Equal to M's hybrid within 0.002: norms above 12 are rare.",
    ),
    _hybrid_of(
        "m-dstate8",
        "Equal to M's hybrid within 0.002, a little faster: half the states, and outlines come from the convolutions.",
    ),
    _hybrid_of(
        "m-dstate32",
        "Equal to M's hybrid within 0.002, a little slower: twice the states, which 320 images do not need.",
    ),
    _hybrid_of(
        "m-expand1",
        "0.003 below M's hybrid: half the channels in every scan, less than without the stem, which has none.",
    ),
    _hybrid_of(
        "m-shallow",
        "0.001 below M's hybrid on ISIC and faster: seven of the 22 blocks fewer, all at low resolution. Networks of "
        "two stages, as on the hippocampus, have none of them.",
    ),
    _hybrid_of(
        "m-high",
        "0.002 above M's hybrid: more blocks where the resolution is high, where its convolutions already are.",
    ),
    Candidate(
        "m-hybrid-supernet",
        "0.02 below M's hybrid on the path 2x4: the convolutions are in every path.",
        planner="HybridM",
        trainer="SliceMambaSupernetTrainer_20epochs",
        slicing=None,
    ),
    Candidate(
        "m-hybrid-paths",
        "0.002 above M's hybrid on ISIC, for the supernet's reason: its blocks cannot rely on one slicing.",
        planner="HybridM",
        trainer="SliceMambaTrainerPaths",
    ),
    Candidate(
        "m-hybrid-shared",
        "0.002 above M's hybrid on ISIC: the same weights as M's, for another path in every iteration, which keeps "
        "them from fitting one; separate weights reached 0.8959.",
        planner="HybridM",
        trainer="SliceMambaSharedSupernetTrainer_20epochs",
        slicing=None,
    ),
    Candidate(
        "m-hybrid-searched",
        "Equal to M's hybrid within 0.003: slicings hardly differ.",
        planner="HybridM",
        slicing=None,
        supernet="m-hybrid-supernet",
    ),
    Candidate(
        "m-hybrid-inherit",
        "0.005 above M's hybrid: twice the data.",
        planner="HybridM",
        trainer="SliceMambaInheritTrainer_20epochs",
        slicing=None,
        supernet="m-hybrid-supernet",
    ),
)
