"""Cases worth a look: the best, the median and the worst of every model, and a few examples of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_slicemamba.common.library_errors import first_line

from .gather import Gathered
from .overlays import CasePicture, draw_case, image_files, truth_file
from .results import CaseDice, typical_cases

N_EXAMPLES = 3


@dataclass(frozen=True)
class CaseView:
    """A case to show. rank: "best", "median", "worst" or empty. where: its fold, in words. dice: None if unknown.
    note: what was not found, or how a prediction is drawn; empty if there is nothing to say."""

    case: str
    rank: str
    where: str
    dice: CaseDice | None
    pictures: list[CasePicture]
    note: str = ""


@dataclass(frozen=True)
class CaseGroup:
    """The cases of one model or folder of predictions. problems: what could not be drawn, one sentence each."""

    title: str
    cases: list[CaseView]
    problems: list[str]


@dataclass(frozen=True)
class _Task:
    case: CaseDice
    rank: str
    where: str
    images: list[Path]
    truth: Path | None
    prediction: Path | None


def case_groups(data: Gathered, progress: Callable[[str, int, int], None] = lambda *_: None) -> list[CaseGroup]:
    """Best, median and worst case of every validated model and every folder of predictions.

    Supernets are left out where there is anything else: nobody predicts with them.
    """
    models = [model for model in data.models if model.validated]
    shown = [model for model in models if not model.is_supernet] or models
    tasks: list[tuple[str, list[_Task]]] = []
    for model in shown:
        origin = {id(case): fold for fold in model.validated if fold.validation for case in fold.validation.cases}
        own = []
        for rank, case in typical_cases(model.cases):
            fold = origin[id(case)]
            images = image_files(data.folders, data.dataset, case.case)
            truth = truth_file(data.folders, data.dataset, case.case)
            own.append(
                _Task(case, rank, f"fold {fold.name}", images, truth, fold.folder / "validation" / case.file_name)
            )
        tasks.append((model.identifier, own))
    for test_set in data.test_sets:
        own = []
        for rank, case in typical_cases(test_set.scores.cases):
            images = image_files(data.folders, data.dataset, case.case, "Ts", data.images)
            files = (test_set.truth / case.file_name, test_set.predictions / case.file_name)
            own.append(_Task(case, rank, "test case", images, *files))
        tasks.append((f"{test_set.name} (test predictions)", own))
    total, done, groups = sum(len(own) for _, own in tasks), 0, []
    for number, (title, own) in enumerate(tasks):
        views, problems = [], []
        for task in own:
            prediction = task.prediction if task.prediction and task.prediction.is_file() else None
            name = f"case-{number}-{task.rank}"
            try:
                pictures = draw_case(task.case.case, task.images, task.truth, prediction, data.dataset, name)
                parts = {"image": task.images, "truth": task.truth, "prediction": prediction}
                note = _note([part for part, found in parts.items() if not found], pictures)
                views.append(CaseView(task.case.case, task.rank, task.where, task.case, pictures, note))
            except Exception as error:  # a damaged image has as many exceptions as readers; the rest is still worth it
                problems.append(f"{task.case.case} could not be drawn: {first_line(error)}")
            done += 1
            progress("drawing cases", done, total)
        groups.append(CaseGroup(title, views, problems))
    return [group for group in groups if group.cases or group.problems]


def example_cases(data: Gathered) -> list[CaseGroup]:
    """The first, the middle and the last training case with their truth; empty if there are no images."""
    cases = data.dataset.cases
    chosen = dict.fromkeys(cases[i * (len(cases) - 1) // (N_EXAMPLES - 1)] for i in range(N_EXAMPLES)) if cases else ()
    views, problems = [], []
    for number, case in enumerate(chosen):
        images = image_files(data.folders, data.dataset, case)
        if not images:
            continue
        try:
            truth = truth_file(data.folders, data.dataset, case)
            pictures = draw_case(case, images, truth, None, data.dataset, f"example-{number}")
            views.append(CaseView(case, "", "training case", None, pictures))
        except Exception as error:  # as above
            problems.append(f"{case} could not be drawn: {first_line(error)}")
    return [CaseGroup("Examples", views, problems)] if views or problems else []


def _note(missing: list[str], pictures: list[CasePicture]) -> str:
    """What a case's caption says of parts that were not found, and of speckles."""
    told = [f"{' and '.join(missing)} not found, shown without"] if missing else []
    filled = list(dict.fromkeys(kind for picture in pictures for kind in picture.filled))
    told += [f"{' and '.join(filled)} filled, for its many small parts"] if filled else []
    return "; ".join(told)
