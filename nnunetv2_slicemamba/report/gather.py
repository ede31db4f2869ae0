"""Everything of a dataset in nnU-Net's folders, read into plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from nnunetv2_slicemamba.common.folders import InputError

from .baseline import Baseline, missing_baselines
from .dataset import DatasetFacts, DatasetFolders, find_dataset, read_dataset
from .hand_set import HandSet, read_hand_set
from .history import VersionRow, read_commands, read_versions
from .models import Model, model_folders, read_models
from .overlays import image_files
from .paper import PaperRow, TestSet, evaluate_test_set, validation_rows
from .plans import ConfigurationFacts, read_plans
from .steps import Steps, find_steps


@dataclass(frozen=True)
class ReportSettings:
    """The content and the file of a report.

    dataset: ID or name. configurations: None for all. predictions: folders of segmentations of the test cases. truth:
    folder of theirs, None for nnUNet_raw/DATASET/labelsTs. images: folder of the test images, None for
    nnUNet_raw/DATASET/imagesTs. output: None for nnUNet_results/DATASET/report.html, or the
    working folder's report.html where there are no results.
    """

    dataset: str
    configurations: tuple[str, ...] | None = None
    predictions: tuple[Path, ...] = ()
    truth: Path | None = None
    output: Path | None = None
    images: Path | None = None


@dataclass(frozen=True)
class Gathered:
    """Everything that a report shows, before anything is drawn.

    hand_set: slicings that were set without a search. baselines: nnU-Net's default where it has no result. images: the
    folder of test images, None for the dataset's. problems: (where, what) of files outside the models' folders.
    """

    folders: DatasetFolders
    dataset: DatasetFacts
    plans: tuple[ConfigurationFacts, ...]
    models: tuple[Model, ...]
    test_sets: tuple[TestSet, ...]
    paper: tuple[PaperRow, ...]
    steps: Steps
    versions: tuple[VersionRow, ...]
    commands: tuple[str, ...]
    hand_set: tuple[HandSet, ...]
    baselines: tuple[Baseline, ...]
    images: Path | None
    problems: tuple[tuple[str, str], ...]

    @property
    def has_searched_results(self) -> bool:
        """Whether a validated fold was trained with a slicing that a search chose on that fold."""
        searched = {
            (model.plans_name, model.configuration, fold.name)
            for model in self.models
            if model.is_supernet
            for fold in model.folds
            if fold.search and fold.search.is_searched
        }
        validated = {
            (model.plans_name, model.configuration, fold.name)
            for model in self.models
            if model.is_final
            for fold in model.validated
        }
        return bool(searched & validated)

    def predicted_with(self, test_set: TestSet) -> tuple[Model, ...]:
        """The trained models that may have made predictions: all but supernets, of the same plans if these are told."""
        trained = [m for m in self.models if not m.is_supernet and any(fold.training for fold in m.folds)]
        return tuple(m for m in trained if test_set.plans_name in ("", m.plans_name))

    def plan_of(self, model: Model) -> ConfigurationFacts | None:
        """The plans that a model was trained with, if they are still there."""
        same = (
            one for one in self.plans if (one.plans_name, one.configuration) == (model.plans_name, model.configuration)
        )
        return next(same, None)


class GatherProgress:
    """Progress bars, one per kind of work, on a terminal; a context manager that shows nothing elsewhere."""

    def __init__(self, console: Console | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns, console=console, disable=console is None or not console.is_terminal, transient=True
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> GatherProgress:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._bar.disable:
            self._bar.stop()

    def update(self, phase: str, done: int, total: int) -> None:
        """Moves a bar. phase: the kind of work. done, total: how far it is."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total)
        self._bar.update(self._tasks[phase], completed=done, total=total)


def check(settings: ReportSettings) -> tuple[DatasetFolders, DatasetFacts, tuple[ConfigurationFacts, ...], list[Path]]:
    """Finds dataset, plans and result folders, and refuses what can be refused before work starts.

    Raises InputError naming value, rule and remedy.
    """
    folders = find_dataset(settings.dataset)
    dataset = read_dataset(folders)
    every_plan, every_model = read_plans(folders, None), model_folders(folders, None)
    known = sorted({one.configuration for one in every_plan} | {f.name.split("__")[2] for f in every_model})
    for configuration in settings.configurations or ():
        if configuration not in known:
            raise InputError(
                f"{dataset.name} has no configuration {configuration!r}, neither planned nor trained; "
                f"it has: {', '.join(known) or 'none'}. Leave out -c to report all"
            )
    if settings.truth and not settings.predictions:
        raise InputError(
            f"--truth {settings.truth} was given without --predictions; give the folder to compare with it"
        )
    if settings.images and not settings.predictions:
        raise InputError(f"--images {settings.images} was given without --predictions; give the folder to draw on them")
    if settings.images and not settings.images.is_dir():
        raise InputError(f"{settings.images} is not a folder; give one with the images of the test cases")
    for folder in (*settings.predictions, *((settings.truth,) if settings.truth else ())):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give one with segmentations named as the test cases")
    wanted = settings.configurations
    return folders, dataset, read_plans(folders, wanted), model_folders(folders, wanted)


def gather(settings: ReportSettings, console: Console | None = None) -> Gathered:
    """Reads everything there is about a dataset. Raises InputError for input that cannot be worked with."""
    folders, dataset, plans, found = check(settings)
    with GatherProgress(console) if console else nullcontext(GatherProgress(None)) as progress:
        # predictions first: a mistake in them is found before anything large is read
        test_sets = read_test_sets(settings, folders, dataset, progress.update)
        require_images(settings.images, test_sets, folders, dataset)
        n_folds = sum(len(list(folder.glob("fold_*"))) for folder in found)
        done = iter(range(n_folds + 1))
        every = read_models(found, dataset, lambda _: progress.update("reading results", next(done) + 1, n_folds))
    hand_set, problems = read_hand_set(folders, every, settings.configurations)
    models = tuple(model for model in every if not model.holds_slicings_only)
    rows = [row for model in models for row in validation_rows(model, dataset)]
    rows.extend(test_set.paper for test_set in test_sets)
    return Gathered(
        folders=folders,
        dataset=dataset,
        plans=plans,
        models=models,
        test_sets=test_sets,
        paper=tuple(rows),
        steps=find_steps(folders, dataset, plans, models, hand_set, bool(test_sets)),
        versions=read_versions(models),
        commands=read_commands(folders, plans, models, hand_set, test_sets, settings.truth, settings.images),
        hand_set=hand_set,
        baselines=missing_baselines(folders.number, plans, models),
        images=settings.images,
        problems=problems,
    )


def require_images(
    images: Path | None, test_sets: Sequence[TestSet], folders: DatasetFolders, dataset: DatasetFacts
) -> None:
    """Raises InputError if --images names a folder without an image of any predicted case."""
    if images is None:
        return
    cases = [case.case for test_set in test_sets for case in test_set.scores.cases]
    if not any(image_files(folders, dataset, case, "Ts", images) for case in cases):
        raise InputError(
            f"{images} holds no image of the predicted cases; name them CASE_0000{dataset.file_ending} as nnU-Net does"
        )


def read_test_sets(
    settings: ReportSettings,
    folders: DatasetFolders,
    dataset: DatasetFacts,
    progress: Callable[[str, int, int], None],
) -> tuple[TestSet, ...]:
    """Evaluates every folder of predictions."""
    if not settings.predictions:
        return ()
    truth = settings.truth or (folders.raw / "labelsTs" if folders.raw else None)
    if truth is None or not truth.is_dir():
        raise InputError(f"there is no truth for {settings.predictions[0]}: give its folder with --truth")
    json_files: Sequence[Path] = [
        folder / "dataset.json"
        for folder in (folders.raw, folders.preprocessed)
        if folder and (folder / "dataset.json").is_file()
    ]
    if not json_files:
        raise InputError(
            f"{dataset.name} has no dataset.json in nnUNet_raw or nnUNet_preprocessed, which --predictions needs"
        )
    return tuple(evaluate_test_set(folder, truth, json_files[0], progress) for folder in settings.predictions)
