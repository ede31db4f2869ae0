"""A step of a run as data: what it follows, and the command that takes it; nothing slow is imported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_slicemamba.common.folder_lock import FolderInUseError

PLAN = "plan"  # the kind of the step before all folds
TRAINING = "training"  # the kind of the step that trains and validates a fold's network


@dataclass(frozen=True)
class Command:
    """A command of ours or of nnU-Net's.

    name, arguments, variables: as run_command takes them. makes: folder that appears when the command has succeeded,
    which writes to `unfinished(makes)`; None for one that writes elsewhere.
    """

    name: str
    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    makes: Path | None = None


@dataclass(frozen=True)
class Finished:
    """Says that a step needs no command. note: where its files are, or what they hold."""

    note: str = ""

    @property
    def text(self) -> str:
        """The words behind the step's title."""
        return f"finished before, {self.note}" if self.note else "finished before"


@dataclass(frozen=True)
class Step:
    """One step of a run.

    name: of its folder of logs. fold: "" for a step of all folds. kind: plan, supernet, search, training, predict,
    evaluate or report. after: names of the steps that must be finished before. look: looks at the files, and gives the
    command that is still needed or Finished. training: result folder of the fold that a training step trains. keeps:
    folders, and patterns in them, of the files from which the step goes on when it was stopped; none if it begins anew.
    """

    name: str
    fold: str
    kind: str
    after: tuple[str, ...]
    look: Callable[[], Command | Finished]
    training: Path | None = None
    keeps: tuple[tuple[Path, str], ...] = ()

    @property
    def title(self) -> str:
        """Name for people, the same wherever the step is told of."""
        return f"fold {self.fold}, {self.kind}" if self.fold else self.kind


def is_finished(step: Step) -> bool:
    """Whether a step's files say that it is finished; False where they cannot be read."""
    with suppress(ValueError, OSError, FolderInUseError):
        return isinstance(step.look(), Finished)
    return False


def unfinished(folder: Path) -> Path:
    """The folder to which a command writes what will be `folder`."""
    return folder.with_name(f"{folder.name}.part")


@contextmanager
def made_whole(command: Command) -> Iterator[None]:
    """Context in which the command runs; a folder that it makes takes the place of an older one if all went well."""
    if command.makes is None:
        yield
        return
    part = unfinished(command.makes)
    shutil.rmtree(part, ignore_errors=True)
    yield
    shutil.rmtree(command.makes, ignore_errors=True)
    part.rename(command.makes)
