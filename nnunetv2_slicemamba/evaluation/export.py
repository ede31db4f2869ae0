"""An evaluation as JSON that says what its numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.common.json_files import plain_json, write_json
from nnunetv2_slicemamba.evaluation.metrics import METRICS, POOLED_METRICS
from nnunetv2_slicemamba.evaluation.results import PROTOCOLS, CaseResult, Evaluation

SCHEMA = 1
PACKAGES = ("nnunetv2-slicemamba", "nnunetv2", "monai", "scipy", "numpy", "torch")


def to_dict(evaluation: Evaluation, protocols: Sequence[str] = tuple(PROTOCOLS)) -> dict[str, Any]:
    """The evaluation as plain JSON types: fractions from 0 to 1, undefined values as None, paths as text."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "predictions": str(evaluation.predictions.resolve()),
        "truth": str(evaluation.truth.resolve()),
        "dataset_json": str(evaluation.dataset_json.resolve()) if evaluation.dataset_json else None,
        "versions": {package: version(package) for package in PACKAGES},
        "settings": asdict(evaluation.settings),
        "classes": [asdict(one) for one in evaluation.classes],
        "ignore_label": evaluation.ignore_label,
        "unit": evaluation.unit,
        "cases": len(evaluation.cases),
        "protocols": {name: PROTOCOLS[name] for name in protocols},
        "notes": evaluation.notes_for(protocols),
    }
    if "paper" in protocols:
        content["paper"] = {
            "metrics": {metric.key: f"{metric.pooled_head}: {metric.definition}" for metric in POOLED_METRICS},
            "classes": {
                name: {**scores, "counts": asdict(evaluation.paper.counts[name])}
                for name, scores in evaluation.paper.scores.items()
            },
            "mean": evaluation.paper.mean,
        }
    if "per-case" in protocols:
        content["per_case"] = {
            "metrics": {key: f"{METRICS[key].title}: {METRICS[key].definition}" for key in evaluation.metrics},
            "classes": {
                name: {metric: asdict(summary) for metric, summary in summaries.items()}
                for name, summaries in evaluation.per_case.summaries.items()
            },
            "mean": {metric: asdict(summary) for metric, summary in evaluation.per_case.mean.items()},
            "cases": [_case(one, evaluation.metrics) for one in evaluation.cases],
        }
    return plain_json(content)


def write_evaluation(evaluation: Evaluation, file: Path, protocols: Sequence[str] = tuple(PROTOCOLS)) -> None:
    """Writes `to_dict` as a JSON file, whole or not at all."""
    write_json(file, to_dict(evaluation, protocols))


def _case(case: CaseResult, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "case": case.case,
        "prediction": str(case.prediction.resolve()),
        "truth": str(case.truth.resolve()),
        "shape": case.shape,
        "spacing": case.spacing,
        "classes": {
            name: {**{metric: scores.value(metric) for metric in metrics}, "counts": asdict(scores.counts)}
            for name, scores in case.scores.items()
        },
    }
