"""A log keeps whole lines whatever cuts one off, and every process's are read."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import pytest
from rich.console import Console

from nnunetv2_slicemamba.search import LedgerError, Record, open_ledger, read_ledger, run_search
from nnunetv2_slicemamba.search.ledger.evaluation_log import EvaluationLog, LogReader, as_json, record_of, records_in
from tests.search.killable_search import SETTINGS, evaluate, fingerprint


def record(index: int, fitness: float = 0.5, generation: int = 0) -> Record:
    return Record((0, 1, 2, 3, index % 4), fitness, generation, index, "random", 0.125, {"dice": [0.5, None]})


@pytest.fixture
def log(tmp_path: Path) -> EvaluationLog:
    made = EvaluationLog(tmp_path / "logs", "a")
    made.begin({"study": "s", "fingerprint": {"seed": 7}}, [record(0)])
    return made


def test_a_record_is_the_same_when_it_is_read_again(log):
    undefined, costly = Record((0,), math.nan, 3, 2, "mutant", 1e-17), Record((1,), 0.1 + 0.2, 3, 3, "", 0.0, {}, 4.25)
    records = [record(1), undefined, costly]
    for one in records:
        log.append(one)
    found = [json.dumps(as_json(one)) for one in LogReader(log).new()]
    assert found == [json.dumps(as_json(one)) for one in [record(0), *records]]
    assert log.header() == {"study": "s", "fingerprint": {"seed": 7}}


def test_a_line_that_a_kill_cut_off_spoils_no_other_and_is_named(log):
    log.append(record(1))
    log.append(record(2))
    log.file.write_text(log.file.read_text()[:-20])
    assert [r.index for r in LogReader(log).new()] == [0, 1]
    next_run = EvaluationLog(log.folder, log.search)
    next_run.append(record(3))
    records, damaged = records_in(log)
    assert sorted(records) == [(0, 0), (0, 1), (0, 3)]
    assert damaged == ("a.jsonl, line 4",)


@pytest.mark.parametrize(
    "line", ["{", "7", "[]", "null", '{"generation": 0}', json.dumps({**as_json(record(9)), "fitness": "high"})]
)
def test_a_damaged_line_is_left_out_and_named(log, line):
    with log.file.open("a") as file:
        file.write(line + "\n")
    log.append(record(1))
    records, damaged = records_in(log)
    assert sorted(records) == [(0, 0), (0, 1)]
    assert damaged == ("a.jsonl, line 3",)


def test_a_line_that_the_disk_cut_off_says_so_and_the_next_is_whole(log, monkeypatch):
    write = os.write
    log.append(record(1))
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:20]))
    with pytest.raises(LedgerError, match=r"\(0, 1, 2, 3, 2\) could not be written to .*No space left.* Make room"):
        log.append(record(2))
    monkeypatch.setattr(os, "write", write)
    log.append(record(3))
    assert [r.index for r in LogReader(log).new()] == [0, 1, 3]


def test_a_folder_that_is_in_the_way_is_named_with_what_is_kept(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(LedgerError, match=r"no evaluation can be kept in .*logs.*a\..* Make the folder writable"):
        EvaluationLog(tmp_path / "logs", "a", helper=True).append(record(1))


def test_helpers_have_files_of_their_own_in_which_nobody_is_a_second_writer(log):
    helper = EvaluationLog(log.folder, "a", helper=True)
    helper.append(record(2))
    log.append(record(1))
    # of a job that was killed, and of another machine's process with this one's number
    EvaluationLog(log.folder, "a", helper=True).append(record(3))
    helper.append(record(4))
    EvaluationLog(log.folder, "another").append(record(9))
    assert [r.index for r in LogReader(log).new()] == [0, 1, 2, 3, 4]
    assert len(log.files()) == 2


def test_of_two_evaluations_in_one_place_the_writers_first_one_counts(log):
    EvaluationLog(log.folder, "a", helper=True).append(record(1, 0.75))
    log.append(record(1, 0.25))
    log.append(record(1, 0.5))
    assert records_in(log)[0][0, 1].fitness == 0.25


def test_a_reader_goes_on_where_it_was_and_takes_no_half_line(log):
    reader = LogReader(log)
    assert [r.index for r in reader.new()] == [0]
    assert reader.new() == []
    log.append(record(1))
    text = json.dumps(as_json(record(2))) + "\n"
    with log.file.open("a") as file:
        file.write(text[:30])
    assert [r.index for r in reader.new()] == [1]
    with log.file.open("a") as file:
        file.write(text[30:])
    EvaluationLog(log.folder, "a", helper=True).append(record(3))
    assert [r.index for r in reader.new()] == [2, 3]
    assert reader.damaged == []


def test_a_log_is_begun_whole_or_not_at_all(log, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    other = EvaluationLog(log.folder, "b")
    with pytest.raises(LedgerError, match=r"no search can be kept in .*logs .*No space left.* Make room"):
        other.begin({"study": "t", "fingerprint": {}}, [record(0)])
    assert [file.name for file in log.folder.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize("first", ["", "{", '{"format": 1}', '{"format": 2, "study": "s", "fingerprint": {}}'])
def test_a_log_without_its_beginning_is_named_with_the_remedy(tmp_path, first):
    study = tmp_path / "study.db"
    open_ledger(study, fingerprint()).close()
    (file,) = (tmp_path / "study.evaluations").glob("*.jsonl")
    file.write_text(first + "\n")
    for opening in (lambda: open_ledger(study, fingerprint()), lambda: read_ledger(study)):
        with pytest.raises(LedgerError, match=rf"{file} does not begin as .* Move it away"):
            opening()


def test_a_search_whose_log_was_damaged_says_what_is_left_out_and_ends_as_any_other(tmp_path):
    study = tmp_path / "study.db"
    with open_ledger(study, fingerprint()) as ledger:
        whole = run_search(evaluate, SETTINGS, ledger, progress=False)
    (file,) = (tmp_path / "study.evaluations").glob("*.jsonl")
    lines = file.read_text().splitlines()
    lines[4], lines[17] = lines[4][:50], lines[17].replace("architecture", "architektur")
    file.write_text("\n".join(lines) + "\n")
    shown = io.StringIO()
    with open_ledger(study, fingerprint()) as ledger:
        again = run_search(evaluate, SETTINGS, ledger, console=Console(file=shown, width=400))
    assert f"{file.name}, line 5; {file.name}, line 18" in shown.getvalue()
    assert again.evaluated_now == 2
    assert [(r.architecture, r.details) for r in again.records] == [(r.architecture, r.details) for r in whole.records]


def test_what_is_not_as_a_record_is_refused():
    entry = as_json(record(0))
    assert record_of(json.loads(json.dumps(entry))) == record(0)
    for name in entry.keys() - {"details", "cost"}:
        with pytest.raises((KeyError, TypeError), match=name):
            record_of({key: value for key, value in entry.items() if key != name})
