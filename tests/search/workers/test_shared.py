"""How processes share a generation: rows and parts, each taken once; when it is over; who fails, and who leaves."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
from torch.distributed import DistNetworkError, HashStore

from nnunetv2_slicemamba.search import Evaluation
from nnunetv2_slicemamba.search.ledger.evaluation_log import EvaluationLog, as_json
from nnunetv2_slicemamba.search.records import Done, Record, Task
from nnunetv2_slicemamba.search.workers.meeting import ForeignMessageError
from nnunetv2_slicemamba.search.workers.shared import Round, SharedWorkers, done_among, help_out, rows_of, work


def fifty_tasks() -> list[Task]:
    return [Task(0, i, tuple(random.Random(i).choices(range(4), k=6))) for i in range(50)]


@pytest.mark.parametrize("world", [1, 2, 8, 60])
def test_the_rows_hold_each_task_once_with_neighbours_together_and_end_with_single_ones(world):
    tasks = fifty_tasks()
    rows = rows_of(tasks, world)
    assert [t for row in rows for part in row for t in part] == sorted(tasks, key=lambda task: task.architecture)
    assert len(rows) == world
    tasks_of = [sum(map(len, row)) for row in rows]
    assert max(tasks_of) - min(tasks_of) <= 1
    assert all(len(row[-1]) == 1 and len(row[0]) <= max(1, len(tasks) // world // 2 + 1) for row in rows if row)
    assert rows_of([], world) == [[]] * world


def test_whoever_takes_parts_in_whatever_order_each_is_taken_once_and_ones_own_come_first():
    rows = rows_of(fifty_tasks(), 3)
    own, others = [len(row) for row in rows], []
    for turn in range(20):
        rng, store = random.Random(turn), HashStore()
        processes = {rank: Round(store, 1, rows) for rank in rng.sample(range(3), rng.choice([1, 2, 3]))}
        taken = {rank: [] for rank in processes}
        left = dict(processes)
        while left:
            rank = rng.choice(sorted(left))
            part = left[rank].take(rank)
            if part is None:
                del left[rank]
            else:
                taken[rank].append(part)
        everything = [t.index for parts in taken.values() for part in parts for t in part]
        assert sorted(everything) == list(range(50))
        for rank, parts in taken.items():
            n_own = sum(part in rows[rank] for part in parts)
            assert parts[:n_own] == rows[rank][:n_own], "one's own row, from its beginning"
            assert all(part not in rows[rank] for part in parts[n_own:])
            others.append(len(parts) - n_own)
    assert max(others) > max(own), "somebody should have done the others' rows"
    assert 0 in others


def test_of_a_stopped_round_nobody_takes_anything():
    shared = Round(HashStore(), 1, rows_of(fifty_tasks(), 2))
    assert shared.take(1) is not None
    shared.stop()
    assert shared.take(1) is None


def test_a_process_takes_its_next_part_before_the_last_result_of_the_one_before(tmp_path):
    tasks = [Task(0, index, (index,)) for index in range(8)]
    store, happened = HashStore(), list[str]()
    shared = Round.announce(store, 1, rows_of(tasks, 1))
    take = shared.take
    shared.take = lambda rank: happened.append("take") or take(rank)

    class Pipelined:
        """As on a GPU: a result is given when the next architecture has been begun."""

        def evaluate(self, tasks, go_on, more):
            before = None
            while tasks:
                for task in tasks:
                    if before is not None:
                        yield before
                    before = Done(task, Evaluation(task.architecture[0] / 8), 0.0)
                tasks = more()
            yield before

    send = shared.send
    shared.send = lambda message: happened.append("gone" if "gone" in message else "result") or send(message)
    work(shared, 0, Pipelined(), EvaluationLog(tmp_path, "a"))
    assert [len(part) for part in shared.rows[0]] == [4, 2, 1, 1]
    together = "take result result result take result result take result take result take result gone"
    assert happened == together.split()
    found = [shared.receive(number) for number in range(9)]
    assert sorted((m["index"], m["fitness"]) for m in found[:-1]) == [(i, i / 8) for i in range(8)]


def test_a_generation_is_over_with_its_last_result_whoever_is_not_gone_yet(tmp_path):
    tasks = [Task(0, index, (index,)) for index in range(4)]
    store = HashStore()

    class Quick:
        def evaluate(self, tasks, go_on, more):
            while tasks:
                for task in tasks:
                    yield Done(task, Evaluation(task.architecture[0] / 4), 0.0)
                tasks = more()

    # the other process never says anything, and has nothing left to do
    with SharedWorkers(store, 2, Quick(), EvaluationLog(tmp_path, "a")) as shared:
        found = []
        thread = threading.Thread(target=lambda: found.extend(shared(tasks, lambda: True)), daemon=True)
        thread.start()
        thread.join(20)
        store.add("goodbyes", 1)
        assert not thread.is_alive(), "it waits for the other"
        assert sorted(done.task.index for done in found) == [0, 1, 2, 3]


def test_a_process_for_which_nothing_is_left_evaluates_nothing(tmp_path):
    store = HashStore()
    shared = Round.announce(store, 1, rows_of([Task(0, 0, (0,))], 2))
    assert shared.take(0) is not None

    class Never:
        def evaluate(self, *arguments):
            raise AssertionError("it would read network and cases")

    assert work(shared, 1, Never(), EvaluationLog(tmp_path, "a")) is False
    assert shared.receive(0) == {"gone": True}


def test_an_error_after_the_last_result_is_raised_in_its_generation(tmp_path):
    received = threading.Event()

    class FailsLate:
        def evaluate(self, tasks, go_on, more):
            yield Done(tasks[0], Evaluation(0.5), 0.0)
            assert received.wait(20)
            raise OSError("the device is gone")

    with SharedWorkers(HashStore(), 1, FailsLate(), EvaluationLog(tmp_path, "a")) as shared:
        shared._store.add("goodbyes", 1)
        with pytest.raises(OSError, match="the device is gone"):  # noqa: PT012
            for _ in shared([Task(0, 0, (0,))], lambda: True):
                received.set()


@pytest.mark.parametrize("helped", [False, True])
def test_a_helper_that_was_ready_too_late_leaves_and_one_that_helped_says_that_the_store_is_gone(tmp_path, helped):
    class Gone(HashStore):
        def check(self, keys):
            if keys == [f"{1 + helped}/parts"]:
                raise DistNetworkError("connection reset")
            return super().check(keys)

    class Quick:
        def evaluate(self, tasks, go_on, more):
            yield Done(tasks[0], Evaluation(0.5), 0.0)

    store = Gone()
    store.set("begin", "a")
    Round.announce(store, 1, rows_of([Task(0, 0, (0,))], 1))
    with pytest.raises(DistNetworkError) if helped else contextlib.nullcontext():
        help_out(store, 1, Quick, tmp_path)


def record(task: Task, **changes) -> dict:
    return as_json(Record.of(Done(task, Evaluation(0.5), 0.1))) | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"index": 7}, r"no evaluation that this search waits for \(KeyError\(\(0, 7\)\)\)"),
        ({"generation": 3}, "no evaluation that this search waits for"),
        (
            {"architecture": [1, 1]},
            r"architecture \(1, 1\) for evaluation 0 of generation 0, which is \(0,\)",
        ),
        ({"origin": "mutant"}, "gives the architecture"),
        ({"fitness": "high"}, "no evaluation that this search waits for"),
        ({"fitness": 1e999}, "no evaluation that this search waits for"),
        ({"architecture": 5}, "no evaluation that this search waits for"),
        ({"unknown": 5}, "no evaluation that this search waits for"),
    ],
)
def test_a_message_that_is_no_evaluation_of_the_generation_is_refused(changes, words, tmp_path):
    task = Task(0, 0, (0,))

    class Never:
        def evaluate(self, tasks, go_on, more):
            return iter(())

    with SharedWorkers(HashStore(), 1, Never(), EvaluationLog(tmp_path, "a")) as shared:
        shared._store.add("goodbyes", 1)
        Round(shared._store, 1, []).send(record(task, **changes))
        with pytest.raises(ForeignMessageError, match=words):
            list(shared([task], lambda: True))


def test_an_evaluation_counts_once():
    tasks = {(0, i): Task(0, i, (i,)) for i in range(2)}
    found = done_among(tasks, record(Task(0, 1, (1,))))
    assert (found.task, found.kept) == (Task(0, 1, (1,)), True)
    assert list(tasks) == [(0, 0)]
    with pytest.raises(ForeignMessageError, match="no evaluation that this search waits for"):
        done_among(tasks, record(Task(0, 1, (1,))))


def test_counters_that_a_stranger_changed_are_noticed():
    store = HashStore()
    shared = Round(store, 1, rows_of(fifty_tasks(), 2))
    store.add("1/row/1/from_end", 100)
    for _ in shared.rows[0]:
        assert shared.take(0)
    with pytest.raises(ForeignMessageError, match="more parts of generation 1 were taken than there are"):
        shared.take(0)
