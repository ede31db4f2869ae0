"""Every JSON file that a command reads, damaged: refused by a message that names it, or passed over; no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.common.commands import CommandError
from nnunetv2_slicemamba.pipeline.fold_steps import RunSettings
from nnunetv2_slicemamba.pipeline.graph import run_folder, write_run
from nnunetv2_slicemamba.planning.selection import select
from tests.cli.commands import broken_promise, called
from tests.cli.supernets import save_untrained_supernet
from tests.conftest import use_folders

PLANS, SUPERNET, FINAL = "nnUNetSliceMambaSPlans", "SliceMambaSupernetTrainer_1epoch", "SliceMambaTrainer_1epoch"
UNTRAINED = "SliceMambaSupernetTrainer_5epochs"
FOLD = ("-d", "901", "-c", "2d", "-f", "0", "-p", PLANS)
DATA, RESULTS = "nnUNet_preprocessed/Dataset901_Disks", "nnUNet_results/Dataset901_Disks"
SEARCHED = f"{RESULTS}/{SUPERNET}__{PLANS}__2d/fold_0"
COMPARED = f"{RESULTS}/comparison/{FINAL}__{PLANS}__2d/fold_0"

SLICING = ("slicing", *FOLD, "-tr", SUPERNET, "--set")
DRY_RUN = ("search", *FOLD, "-tr", SUPERNET, "-device", "cpu", "--dry-run")
RUN = ("run", *FOLD, "-tr", FINAL, "-device", "cpu")
COMPARE = ("compare", *FOLD, "-tr", FINAL, "-device", "cpu")
EVALUATE = ("evaluate", "predictions", "truth", "--no-surface", "-np", "1")
CONVERT = ("convert", "folders", "--images", "truth", "--masks", "masks", "-d", "77", "--name", "Own")
HOLDOUT = ("holdout", *FOLD, "-tr", UNTRAINED, "--fraction", "0.5")
STATUS = ("status", "-d", "901")
STEPS = f"{RESULTS}/steps/{FINAL}__{PLANS}__2d"
REPORT = ("report", "-d", "901", "-o", "report.html")
# a file, and a command that reads it
FILES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"{DATA}/{PLANS}.json", (*SLICING, "2x4")),
    (f"{DATA}/splits_final.json", (*SLICING, "2x4")),
    (f"{DATA}/dataset.json", DRY_RUN),
    (f"{DATA}/nnUNetPlans_2d/slicemamba/made_with.json", RUN),
    (f"{SEARCHED}/validation/summary.json", RUN),
    (f"{SEARCHED}/slicing_search/best_slicing.json", RUN),
    (f"{SEARCHED}/slicing_search/best_slicing.json", (*COMPARE, "--arms", "searched", "--dry-run")),
    ("chosen.json", (*SLICING, "chosen.json")),
    ("pareto.json", (*SLICING, "pareto.json:1")),
    (f"{RESULTS}/{UNTRAINED}__{PLANS}__2d/fold_0/slicing_search/holdout.json", HOLDOUT),
    (f"{COMPARED}/settings.json", (*COMPARE, "--collect")),
    (f"{COMPARED}/2x4/arm.json", (*COMPARE, "--collect")),
    (f"{COMPARED}/2x4/slicing.json", (*COMPARE, "--collect")),
    ("predictions/dataset.json", EVALUATE),
    ("nnUNet_raw/Dataset077_Own/dataset.json", CONVERT),
    ("nnUNet_raw/Dataset077_Own/slicemamba_convert.json", CONVERT),
    (f"{STEPS}/run.json", STATUS),
    (f"{STEPS}/fold_0_training/job.json", STATUS),
    (f"{STEPS}/fold_0_training/ended.json", STATUS),
)
RUN_SAID = {"command": "slicemamba run", "process": 1, "host": "here", "started": "now"}
JOB_SAID = {"job": "7", "place": "cores 0", "log": "missing.log", "started": "now", "command": "nnUNetv2_train"}
# a report reads everything and takes its time: it gets fewer files and kinds of damage
REPORTED = (
    f"{DATA}/{PLANS}.json",
    f"{DATA}/dataset.json",
    f"{SEARCHED}/debug.json",
    f"{SEARCHED}/validation/summary.json",
)


def damaged(content: bytes) -> dict[str, bytes]:
    """The content of a JSON file, damaged in every way that happens."""
    cut = {f"cut at {part} sixths": content[: len(content) * part // 6] for part in range(1, 6)}
    return {
        # the first two are what a report is tried with
        "a list": b"[]",
        "not UTF-8": b"\xff\x00" + content,
        "empty": b"",
        **cut,
        "a dict": b"{}",
        "a number": b"5",
        "null": b"null",
        "byte order mark": b"\xef\xbb\xbf" + content,
        "too deep": b"[" * 100_000,
    }


@pytest.fixture(scope="module")
def tree(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Working folder with everything that commands read; nothing starts a process."""
    root = tmp_path_factory.mktemp("bad_files") / "tree"
    shutil.copytree(planned, root)
    for folder in ("predictions", "truth", "masks"):
        (root / folder).mkdir()
        for case in range(5):
            mask = np.zeros((8, 8), np.uint8)
            mask[2:5, 2 : 3 + case] = 255 if folder == "masks" else 1
            Image.fromarray(mask).save(root / folder / f"case_{case}.png")
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "ball": 1}, "numTraining": 5}
    (root / "predictions/dataset.json").write_text(json.dumps(description | {"file_ending": ".png"}))
    # where the raw data are missing, nothing is preprocessed
    shutil.rmtree(root / "nnUNet_raw/Dataset901_Disks")

    def not_started(name: str, arguments: Any, *rest: Any, **options: Any) -> None:
        raise CommandError(f"'{name}' is not started by this test")

    with pytest.MonkeyPatch.context() as monkeypatch:
        use_folders(root, monkeypatch)
        monkeypatch.chdir(root)
        for module in ("pipeline.fold_steps", "comparison.compare", "common.commands"):
            monkeypatch.setattr(f"nnunetv2_slicemamba.{module}.run_command", not_started)
        save_untrained_supernet(select("901", "2d", "0", PLANS), SUPERNET)
        size = ("--population", "2", "--generations", "0", "--objective", "dice-latency")
        search = called(*DRY_RUN[:-1], *size)
        assert search.code == 0, search.message
        summary = {"metric_per_case": [], "mean": {}, "foreground_mean": {"Dice": 0.5}}
        (root / SEARCHED / "validation").mkdir()
        (root / SEARCHED / "validation/summary.json").write_text(json.dumps(summary))
        (root / SEARCHED / "debug.json").write_text(json.dumps({"num_epochs": "1"}))
        shutil.copy(root / SEARCHED / "slicing_search/best_slicing.json", root / "chosen.json")
        shutil.copy(root / SEARCHED / "slicing_search/pareto.json", root / "pareto.json")
        selections, settings = [select("901", "2d", "0", PLANS)], RunSettings(FINAL, SUPERNET, "cpu", (), search=False)
        step = run_folder(selections, settings).step("fold_0_training")
        step.mkdir(parents=True)
        write_run(run_folder(selections, settings), selections, settings, **RUN_SAID)
        (step / "job.json").write_text(json.dumps(JOB_SAID))
        (step / "ended.json").write_text(json.dumps({"job": "7", "code": 1, "message": "full", "ended": "now"}))
        assert "full" in called(*STATUS).out
        for command in (HOLDOUT, CONVERT, (*COMPARE, "--arms", "2x4")):
            ended = called(*command)
            assert ended.code == 0 or "is not started" in ended.message, ended.message
        yield root


def wrong_ends(file: Path, command: tuple[str, ...], kinds: int | None = None) -> Iterator[str]:
    """Sentences about the ends of a command that reads a damaged file, where they are not as they should be."""
    before = file.read_bytes()
    for kind, content in list(damaged(before).items())[:kinds]:
        file.write_bytes(content)
        ended = called(*command)
        # a command may have given the file a new place or content
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(before)
        problem = broken_promise(ended)
        named = any(name in ended.message for name in (file.stem, str(file.parent), str(file.parents[1])))
        if problem is None and ended.code == 2 and not named and ended.message != called(*command).message:
            problem = f"does not name it: {ended.message}"
        if problem:
            yield f"{file.name}, {kind}: {command[0]} {problem}"


@pytest.mark.parametrize(("file", "command"), FILES)
def test_a_damaged_file_is_named(tree: Path, file: str, command: tuple[str, ...]) -> None:
    assert list(wrong_ends(tree / file, command)) == []


@pytest.mark.parametrize("file", REPORTED)
def test_a_report_goes_on_without_a_damaged_file_or_names_it(tree: Path, file: str) -> None:
    assert list(wrong_ends(tree / file, REPORT, kinds=2)) == []
