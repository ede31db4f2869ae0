"""How good are segmentations? The paper's pooled metrics, and metrics per case with confidence intervals."""

from nnunetv2_slicemamba.evaluation.confusion import Counts
from nnunetv2_slicemamba.evaluation.evaluate import evaluate_folders
from nnunetv2_slicemamba.evaluation.export import to_dict, write_json
from nnunetv2_slicemamba.evaluation.latex import latex_tables
from nnunetv2_slicemamba.evaluation.metrics import METRICS, PAPER_METRICS, Metric
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

__all__ = [
    "METRICS",
    "PAPER_METRICS",
    "CaseResult",
    "ClassLabel",
    "Counts",
    "Evaluation",
    "EvaluationSettings",
    "Metric",
    "PaperResult",
    "PerCaseResult",
    "Scores",
    "Summary",
    "evaluate_folders",
    "latex_tables",
    "print_evaluation",
    "to_dict",
    "write_json",
]
