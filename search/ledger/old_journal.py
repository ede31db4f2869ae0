"""What a search of an older version had finished, but not yet written into its study, when it was killed.

That version kept evaluations in a study, some time after it had kept them in files of a folder `unsaved`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container
from pathlib import Path

from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.records import Done, Evaluation, Task

FOLDER = "unsaved"


class OldJournal:
    """The left-over evaluations of one search; its files are deleted when the last of them is taken.

    folder: of the search. location: of its study, see `location_of`. known: (generation, index) of the evaluations that
    are kept elsewhere.
    """

    def __init__(
        self, folder: Path, fingerprint: Fingerprint, study: str, location: str, known: Container[tuple[int, int]]
    ) -> None:
        content = json.dumps([fingerprint.as_dict(), study, location], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._folder = folder / FOLDER
        self._files = sorted(self._folder.glob(f"{name}.*.jsonl"))
        self._left: dict[tuple[int, int], Done] = {}
        for file in self._files:
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    # these lines do not say how the architecture came about
                    task = Task(int(entry["generation"]), int(entry["index"]), tuple(entry["architecture"]), "")
                    fitness = math.nan if entry["fitness"] is None else entry["fitness"]
                    evaluation = Evaluation(fitness, dict(entry["details"]), entry.get("cost"))
                    done = Done(task, evaluation, float(entry["seconds"]))
                except (ValueError, TypeError, KeyError):  # the line that a process was killed in
                    continue
                if (task.generation, task.index) not in known:
                    self._left[task.generation, task.index] = done
        if not self._left:
            self.delete()

    def find(self, task: Task) -> Done | None:
        """The task, finished, if it is among the left-over ones."""
        done = self._left.get((task.generation, task.index))
        if done is None or done.task.architecture != task.architecture:
            return None
        return Done(task, done.evaluation, done.seconds)

    def taken(self, task: Task) -> None:
        """The task is kept elsewhere now."""
        del self._left[task.generation, task.index]
        if not self._left:
            self.delete()

    def delete(self) -> None:
        """Deletes the files, and with the last search's their folder."""
        for file in self._files:
            file.unlink(missing_ok=True)
        if self._files and not any(self._folder.iterdir()):
            self._folder.rmdir()
        self._files, self._left = [], {}
