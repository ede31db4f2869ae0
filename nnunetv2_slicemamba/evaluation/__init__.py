"""Evaluation of segmentations: the paper's pooled metrics, and metrics per case with confidence intervals."""

from typing import TYPE_CHECKING

from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.export import to_dict, write_evaluation
from nnunetv2_slicemamba.evaluation.latex import latex_tables
from nnunetv2_slicemamba.evaluation.metrics import METRICS, POOLED_METRICS, CountMetric, MaskMetric, Metric
from nnunetv2_slicemamba.evaluation.results import (
    CaseResult,
    ClassLabel,
    Evaluation,
    EvaluationSettings,
    PaperResult,
    PerCaseResult,
    Scores,
    Summary,
)
from nnunetv2_slicemamba.evaluation.tables import print_evaluation

if TYPE_CHECKING:
    from nnunetv2_slicemamba.evaluation.evaluate import evaluate_folders
else:

    def __getattr__(name):
        # nnU-Net and SciPy take seconds to import, which the help with its list of metrics need not wait for
        if name != "evaluate_folders":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from nnunetv2_slicemamba.evaluation.evaluate import evaluate_folders

        return evaluate_folders


__all__ = [
    "METRICS",
    "POOLED_METRICS",
    "CaseResult",
    "ClassLabel",
    "CountMetric",
    "Counts",
    "Evaluation",
    "EvaluationSettings",
    "MaskMetric",
    "Metric",
    "PaperResult",
    "PerCaseResult",
    "Scores",
    "Summary",
    "evaluate_folders",
    "latex_tables",
    "print_evaluation",
    "to_dict",
    "write_evaluation",
]
