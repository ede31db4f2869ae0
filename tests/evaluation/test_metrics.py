"""A metric is one entry of the registry: whatever shows metrics shows every entry."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from nnunetv2_slicemamba.cli.main import main
from nnunetv2_slicemamba.evaluation import EvaluationSettings, Summary, evaluate_folders, latex_tables, to_dict
from nnunetv2_slicemamba.evaluation.latex import escape_latex
from nnunetv2_slicemamba.evaluation.metrics import (
    LENGTH,
    METRICS,
    POOLED_METRICS,
    SHARE,
    CountMetric,
    MaskMetric,
    per_case_metrics,
)
from nnunetv2_slicemamba.report.paper import NAMES
from tests.evaluation.evaluation_folders import write_folders

SETTINGS = EvaluationSettings(tolerance=1.5, resamples=200)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands" / "evaluate.md"


def printed_by(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit):
        main(["evaluate", *map(str, arguments)])
    return capsys.readouterr().out


def test_json_and_latex_hold_every_metric(tmp_path: Path) -> None:
    evaluation = evaluate_folders(*write_folders(tmp_path, cases=3), settings=SETTINGS)
    content = json.loads(json.dumps(to_dict(evaluation)))
    keys = [metric.key for metric in per_case_metrics(SETTINGS)]
    assert list(content["per_case"]["metrics"]) == list(content["per_case"]["mean"]) == keys
    assert list(content["per_case"]["cases"][0]["classes"]["liver"]) == [*keys, "counts"]
    assert list(content["paper"]["mean"]) == [metric.key for metric in POOLED_METRICS]
    heads = re.findall(r"^ +Class & (.*) \\\\$", latex_tables(evaluation), flags=re.MULTILINE)
    assert heads[0].split(" & ") == [escape_latex(metric.pooled_head) for metric in POOLED_METRICS]
    assert heads[1].split(" & ") == [
        escape_latex(metric.head(SETTINGS, "px")) for metric in per_case_metrics(SETTINGS) if metric.in_short_tables
    ]


@pytest.mark.parametrize(("n_labels", "short"), [(3, False), (6, True)], ids=["few classes", "many classes"])
def test_the_terminal_shows_every_metric_and_with_many_classes_those_for_short_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], n_labels: int, short: bool
) -> None:
    folders = write_folders(tmp_path, cases=2, n_labels=n_labels, dataset=False)
    printed = printed_by(capsys, *folders, "--tolerance", 1.5)
    lines = printed.partition("Per case")[2].splitlines()
    shown = [line.split("│")[2].strip() for line in lines if "│" in line]
    wanted = [
        metric.head(SETTINGS, "px") for metric in per_case_metrics(SETTINGS) if metric.in_short_tables or not short
    ]
    assert shown == wanted * n_labels  # the classes without the background, and their mean
    assert [cell.strip() for cell in printed.splitlines()[2].split("┃")[2:-1]] == [
        metric.pooled_head for metric in POOLED_METRICS
    ]


def test_the_report_pools_the_same_metrics() -> None:
    assert tuple(metric.pooled_head for metric in POOLED_METRICS) == NAMES


def test_the_help_defines_every_metric(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for _ in range(2):
        text = " ".join(printed_by(capsys, "--help").split())
        for metric in METRICS.values():
            assert f" {metric.title} {metric.definition}" in text, metric.key
        assert text.count(METRICS["hd95"].definition) == 1
    assert f"{METRICS['hd95'].definition} (of masks, lower is better)" in text
    assert f"{METRICS['dice'].definition} (pooled as DSC)" in text


def test_the_page_explains_every_metric() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| metric | definition, empty masks included |\n")[2]
    rows = [row.split("|")[1] for row in table.split("\n\n")[0].splitlines()]
    explained = {name.strip() for row in rows for name in row.split(",")}
    for metric in METRICS.values():
        assert metric.title in explained
    assert {metric.pooled_head for metric in POOLED_METRICS} <= explained


def test_without_metrics_of_masks_only_counts_are_left() -> None:
    kept = per_case_metrics(EvaluationSettings(surface=False))
    assert kept
    assert not any(isinstance(metric, MaskMetric) for metric in kept)


@pytest.mark.parametrize(
    ("unit", "head", "shown"),
    [(SHARE, "New", "12.346"), (LENGTH, "New (mm)", "0.123"), ("mL", "New (mL)", "0.123"), ("", "New", "0.123")],
)
def test_head_and_values_follow_the_unit(unit: str, head: str, shown: str) -> None:
    metric = MaskMetric(
        key="new",
        title="New",
        definition="made up",
        unit=unit,
        higher_is_better=True,
        function=lambda masks, settings: 0,
        digits=3,
    )
    assert metric.head(SETTINGS, "mm") == head
    assert metric.shown(0.123456) == shown
    assert metric.shown(math.nan) == "-"


def test_what_is_no_share_is_not_pooled() -> None:
    with pytest.raises(ValueError, match="'difference' is pooled and no share"):
        CountMetric(
            key="difference",
            title="VD",
            definition="made up",
            unit="pixels",
            higher_is_better=False,
            pooled=True,
            function=lambda n: float(abs(n.fp - n.fn)),
        )


def test_hd95_says_what_it_leaves_out_or_counts() -> None:
    note = METRICS["hd95"].note
    assert note is not None
    nothing = (math.nan,) * 7
    assert note("liver", Summary(6, 6, 0, 0, *nothing), SETTINGS) == ""
    assert note("liver", Summary(6, 4, 2, 1, *nothing), SETTINGS).startswith("HD95 of liver leaves out 1 of 6 cases")
    diagonal = EvaluationSettings(hd95_one_empty="diagonal")
    assert note("liver", Summary(6, 5, 1, 1, *nothing), diagonal) == (
        "HD95 of liver counts 1 of 6 cases as the image's diagonal"
    )
