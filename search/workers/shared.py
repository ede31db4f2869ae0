"""Workers of several processes: they share a generation.

The writer, rank 0, announces the architectures in the order of their first blocks, a row for each process: what begins
alike is evaluated by the same process in this generation and the next, which has its features. A row is cut into parts
that become smaller. Every process, the writer's own evaluating thread among them, takes the first part left of its row,
or when there is none the last one left of another's, and sends each result when it is there. Who evaluates what changes
nothing: a generation is proposed when the one before is whole. They exchange a few hundred bytes per evaluation, so
that no collective operation is needed that would hang when one of them is gone.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_slicemamba.search.ledger.evaluation_log import EvaluationLog, as_json, record_of
from nnunetv2_slicemamba.search.records import Done, Evaluation, Record, Task
from nnunetv2_slicemamba.search.workers.base import BatchEvaluator, Workers
from nnunetv2_slicemamba.search.workers.meeting import POLL_SECONDS, ForeignMessageError, Messages, wait_for

GOODBYE_SECONDS = 30.0
WRITER = 0  # its rank
_END: dict[str, Any] = {"end": True}
_GONE: dict[str, Any] = {"gone": True}
_SAME_VERSION = (
    "are all processes of the same version? What was evaluated is kept, and the same command continues the search"
)

Row = list[list[Task]]  # the parts of a process


class Round:
    """The messages about one generation. Every process makes a round; only the writer announces it and listens.

    rows: the parts of each process.
    """

    def __init__(self, store: Messages, number: int, rows: list[Row]) -> None:
        self._store, self._number = store, number
        self.rows = rows
        self._from_front = 0

    @classmethod
    def announce(cls, store: Messages, number: int, rows: list[Row]) -> Round:
        content = [[[(t.generation, t.index, t.architecture, t.origin) for t in part] for part in row] for row in rows]
        store.set(f"{number}/parts", json.dumps({"rows": content}))
        return cls(store, number, rows)

    @classmethod
    def await_next(cls, store: Messages, number: int) -> Round | None:
        """The round with this number, as soon as it is announced; None at the end of the search."""
        key = f"{number}/parts"
        wait_for(store, key)
        content = json.loads(store.get(key))
        if content == _END:
            return None
        rows = [[[Task(g, i, tuple(a), origin) for g, i, a, origin in part] for part in row] for row in content["rows"]]
        return cls(store, number, rows)

    def take(self, rank: int) -> list[Task] | None:
        """A part that nobody has taken, None if there is none or the round was stopped. rank: whose row comes first."""
        if self.is_stopped():
            return None
        for other in range(len(self.rows)):
            number = (rank + other) % len(self.rows)
            row, key = self.rows[number], f"{self._number}/row/{number}"
            # whoever may take one takes it from an end that is its own, so that no two take the same
            if self._store.add(f"{key}/taken", 1) > len(row):
                continue
            if other:
                at = -self._store.add(f"{key}/from_end", 1)
            else:
                at = self._from_front
                self._from_front += 1
            if not -len(row) <= at < len(row):
                raise ForeignMessageError(
                    f"more parts of generation {self._number} were taken than there are: a stranger changes the "
                    "counters of the search. Start it again where others do not reach it; what was evaluated is kept"
                )
            return row[at]
        return None

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message to the writer; messages are numbered in the order in which they were sent."""
        number = self._store.add(f"{self._number}/sent", 1) - 1
        self._store.set(f"{self._number}/message/{number}", json.dumps(message))

    def receive(self, number: int) -> dict[str, Any] | None:
        """Message `number` from 0, None as long as it has not come."""
        key = f"{self._number}/message/{number}"
        if not self._store.check([key]):
            return None
        message = json.loads(self._store.get(key))
        self._store.delete_key(key)
        return message

    def stop(self) -> None:
        """Nobody begins another evaluation of this round."""
        self._store.set(f"{self._number}/stop", "1")

    def is_stopped(self) -> bool:
        return bool(self._store.check([f"{self._number}/stop"]))


class SharedWorkers(Workers):
    """The writer's side; use as a context manager, which sends the helpers home.

    evaluator: of this process, run in a thread. world: number of processes, this one included. log: of the search, to
    which every process appends what it finishes before it sends it.
    """

    def __init__(self, store: Messages, world: int, evaluator: BatchEvaluator, log: EvaluationLog) -> None:
        self._store, self._world, self._evaluator, self._log = store, world, evaluator, log
        self._round = 0
        self._error: BaseException | None = None
        store.set("begin", log.search)

    def __call__(self, tasks: Sequence[Task], go_on: Callable[[], bool]) -> Iterator[Done]:
        if not tasks:
            return
        self._round += 1
        shared = Round.announce(self._store, self._round, rows_of(tasks, self._world))
        own = threading.Thread(target=self._work, args=(shared,), daemon=True)
        own.start()
        waiting = {(task.generation, task.index): task for task in tasks}
        received = gone = 0
        stopped = False
        try:
            # those who have nothing left to do need not have said so before the next round
            while waiting and gone < self._world:
                if not stopped and not go_on():
                    stopped = True
                    shared.stop()
                message = shared.receive(received)
                if self._error is not None:
                    raise self._error
                if message is None:
                    time.sleep(POLL_SECONDS)
                    continue
                received += 1
                if message == _GONE:
                    gone += 1
                else:
                    yield done_among(waiting, message)
        finally:
            if waiting and gone < self._world:
                shared.stop()
        own.join()
        if self._error is not None:
            raise self._error

    def _work(self, shared: Round) -> None:
        try:
            work(shared, WRITER, self._evaluator, self._log)
        except BaseException as error:  # raised again by the writer
            self._error = error

    def __enter__(self) -> SharedWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # after an error the launcher ends the helpers, unless they hear of it first
        with contextlib.suppress(RuntimeError):
            self._store.set(f"{self._round + 1}/parts", json.dumps(_END))
            give_up = time.monotonic() + (GOODBYE_SECONDS if kind is None else 0)
            # where this process holds the store, it must not leave before the others
            while time.monotonic() < give_up and self._store.add("goodbyes", 0) < self._world - 1:
                time.sleep(POLL_SECONDS)


def help_out(store: Messages, rank: int, make_evaluator: Callable[[], BatchEvaluator], logs: Path) -> None:
    """The other processes' side: evaluates what the writer announces until the search ends.

    rank: of this process, from 1. make_evaluator: called when the writer has found everything in order. logs: the
    folder of the search's log.
    """
    from torch.distributed import DistError

    wait_for(store, "begin")
    log = EvaluationLog(logs, store.get("begin").decode(), helper=True)
    evaluator = make_evaluator()
    number, helped = 1, False
    try:
        while (shared := Round.await_next(store, number)) is not None:
            helped |= work(shared, rank, evaluator, log)
            number += 1
        store.add("goodbyes", 1)
    except DistError:
        # a short search may be over, and its store gone, before this process was ready
        if helped:
            raise


def work(shared: Round, rank: int, evaluator: BatchEvaluator, log: EvaluationLog) -> bool:
    """Takes parts and evaluates them until there are none left, each while the one before is being finished.

    Returns whether there was one.
    """

    def more() -> list[Task]:
        return shared.take(rank) or []

    # without any part the evaluator need not read network and cases
    if first := more():
        for done in evaluator.evaluate(first, lambda: not shared.is_stopped(), more):
            record = Record.of(done)
            log.append(record)
            shared.send(as_json(record))
    shared.send(_GONE)
    return bool(first)


def done_of(record: Record) -> Done:
    """The finished task that another process, or thread, has kept as this record."""
    task = Task(record.generation, record.index, record.architecture, record.origin)
    return Done(task, Evaluation(record.fitness, record.details, record.cost), record.seconds, kept=True)


def done_among(waiting: dict[tuple[int, int], Task], message: Any) -> Done:
    """The finished task of a message, which is taken out of those that are waited for, by (generation, index).

    Raises ForeignMessageError for anything else than an evaluation of one of them.
    """
    try:
        done = done_of(record_of(message))
        expected = waiting.pop((done.task.generation, done.task.index))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ForeignMessageError(
            f"a message of another process is no evaluation that this search waits for ({error!r}); {_SAME_VERSION}"
        ) from error
    if done.task != expected:
        raise ForeignMessageError(
            f"a message of another process gives the architecture {done.task.architecture} for evaluation "
            f"{expected.index} of generation {expected.generation}, which is {expected.architecture}; {_SAME_VERSION}"
        )
    return done


def rows_of(tasks: Sequence[Task], world: int) -> list[Row]:
    """A row for each process, in the order of the architectures' first blocks.

    Large parts come first, single tasks at last, so that nobody waits long for another.
    """
    ordered = sorted(tasks, key=lambda task: task.architecture)
    ends = [len(ordered) * (rank + 1) // world for rank in range(world)]
    rows = []
    for begin, end in zip([0, *ends], ends, strict=False):
        row: Row = []
        while begin < end:
            size = max(1, (end - begin) // 2)
            row.append(ordered[begin : begin + size])
            begin += size
        rows.append(row)
    return rows
