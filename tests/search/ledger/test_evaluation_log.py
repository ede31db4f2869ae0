"""A log keeps whole lines whatever cuts one off, and every process's are read."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.verbosity import SliceMambaWarning, show_warnings_as_lines
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
    assert damaged == ("a.jsonl, line 5",)


def of_record(**changes):
    return json.dumps({**as_json(record(9)), **changes}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"7",
        b"[]",
        b"null",
        b'{"generation": 0}',
        b"\xe9" + of_record(),
        b"\0" * 512,
        b"[" * 100_000,
        of_record(fitness="high"),
        of_record(fitness=10**400),
        of_record(fitness=float("inf")),
        of_record(details=5),
        of_record(index=-1),
        of_record(seconds=None),
        of_record(architecture=[0, "1"]),
        of_record(crc32=1),
    ],
    ids=lambda line: repr(line[:12]),
)
def test_a_damaged_line_is_left_out_and_named(log, line):
    with log.file.open("ab") as file:
        file.write(line + b"\n")
    log.append(record(1))
    records, damaged = records_in(log)
    assert sorted(records) == [(0, 0), (0, 1)]
    assert damaged == ("a.jsonl, line 4",)


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


@pytest.mark.parametrize(
    "first", ["", "{", '{"format": 1}', '{"format": 2, "study": "s", "fingerprint": 3}', "\0" * 512]
)
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
    with (
        pytest.warns(SliceMambaWarning, match=f"{file.name}, line 5; {file.name}, line 18"),
        open_ledger(study, fingerprint()) as ledger,
    ):
        again = run_search(evaluate, SETTINGS, ledger, progress=False)
    assert again.evaluated_now == 2
    assert [(r.architecture, r.details) for r in again.records] == [(r.architecture, r.details) for r in whole.records]


def test_what_is_not_as_a_record_is_refused():
    entry = as_json(record(0))
    assert record_of(json.loads(json.dumps(entry))) == record(0)
    for name in entry.keys() - {"details", "cost"}:
        with pytest.raises(ValueError, match=name):
            record_of({key: value for key, value in entry.items() if key != name})


def test_a_digit_that_a_disk_changed_is_noticed(log):
    log.append(record(1))
    log.file.write_bytes(log.file.read_bytes().replace(b'"fitness": 0.5', b'"fitness": 0.9'))
    records, damaged = records_in(log)
    assert records == {}
    assert damaged == ("a.jsonl, line 3", "a.jsonl, line 4")


def test_a_log_has_its_beginning_twice(log):
    content = log.file.read_bytes()
    log.file.write_bytes(b"\xff" + content[1:])
    assert log.header() == {"study": "s", "fingerprint": {"seed": 7}}
    records, damaged = records_in(log)
    assert list(records) == [(0, 0)]
    assert damaged == ("a.jsonl, line 1",)


def test_a_log_of_a_version_without_checksums_is_read_and_continued(log):
    lines = [{"format": 1, "study": "s", "fingerprint": {"seed": 7}}, as_json(record(0))]
    log.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert log.header() == {"study": "s", "fingerprint": {"seed": 7}}
    log.append(record(1))
    records, damaged = records_in(log)
    assert [r for _, r in sorted(records.items())] == [record(0), record(1)]
    assert damaged == ()


def test_what_a_damaged_line_held_is_taken_from_the_study_and_told_in_one_line(tmp_path, capsys, monkeypatch):
    study = tmp_path / "study.db"
    with open_ledger(study, fingerprint()) as ledger:
        whole = run_search(evaluate, SETTINGS, ledger, progress=False)
        ledger.export()
    (file,) = (tmp_path / "study.evaluations").glob("*.jsonl")
    lines = file.read_bytes().split(b"\n")
    lines[6] = lines[6].replace(b"architecture", b"architektur")
    file.write_bytes(b"\n".join(lines))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which is put back
    show_warnings_as_lines()
    with open_ledger(study, fingerprint()) as ledger:
        again = run_search(evaluate, SETTINGS, ledger, progress=False)
    assert (again.evaluated_now, again.records) == (0, whole.records)
    with warnings.catch_warnings():  # as libraries do, after which Python tells all again
        assert len(read_ledger(study)[1]) == len(whole.records)
    assert len(read_ledger(study)[1]) == len(whole.records)
    told = re.escape(f"warning: left out of {file.parent}, because")
    assert re.fullmatch(rf"{told}[^\n]* {file.name}, line 7\. [^\n]*\n", capsys.readouterr().err)
