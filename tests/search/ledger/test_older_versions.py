"""A search that an older version began, which kept everything in the study, is read and continued."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nnunetv2_slicemamba.search import (
    LedgerError,
    Record,
    StudyRefusedError,
    open_ledger,
    read_ledger,
    run_search,
)
from nnunetv2_slicemamba.search.ledger import storage
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
from tests.search.killable_search import SETTINGS, evaluate, fingerprint

NAME = fingerprint().study_name


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Record]:
    with open_ledger(tmp_path_factory.mktemp("whole") / "study.db", fingerprint()) as ledger:
        return list(run_search(evaluate, SETTINGS, ledger, progress=False).records)


@pytest.fixture
def study(tmp_path) -> Path:
    return tmp_path / "study.db"


def old_study(file: Path, records: list[Record], name: str = NAME) -> optuna.Study:
    """As the older version left it, trial by trial."""
    made = optuna.create_study(storage=f"sqlite:///{file}", study_name=name, direction="maximize")
    made.set_user_attr("slicing_search", fingerprint().as_dict())
    for record in records:
        undefined = math.isnan(record.fitness)
        made.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL if undefined else optuna.trial.TrialState.COMPLETE,
                value=None if undefined else record.fitness,
                params={f"block_{block:02d}": index for block, index in enumerate(record.architecture)},
                distributions={
                    f"block_{block:02d}": optuna.distributions.CategoricalDistribution((0, 1, 2, 3))
                    for block in range(len(record.architecture))
                },
                user_attrs={
                    "architecture": list(record.architecture),
                    "generation": record.generation,
                    "index": record.index,
                    "origin": record.origin,
                    "seconds": record.seconds,
                    **record.details,
                },
            )
        )
    return made


def left_over(file: Path, records: list[Record], host: str = "host.1") -> Path:
    """Lines that it had not written into the study."""
    identity = json.dumps([fingerprint().as_dict(), NAME, str(file)], sort_keys=True)
    journal = file.parent / "unsaved" / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.{host}.jsonl"
    journal.parent.mkdir(exist_ok=True)
    lines = [
        {
            "generation": r.generation,
            "index": r.index,
            "architecture": r.architecture,
            "fitness": None if math.isnan(r.fitness) else r.fitness,
            "details": r.details,
            "seconds": r.seconds,
        }
        for r in records
    ]
    journal.write_text("".join("\n" + json.dumps(line) + "\n" for line in lines))
    return journal


def content_of(records) -> list[Record]:
    """Made comparable: NaN, and the time it took."""
    return [replace(r, fitness=-1.0 if math.isnan(r.fitness) else r.fitness, seconds=0.0) for r in records]


def test_a_study_is_read_and_continued_and_its_evaluations_are_taken_over_once(study, whole):
    old_study(study, whole[:9])
    before = study.read_bytes()
    assert has_ledger(study)
    assert read_ledger(study)[0] == fingerprint().as_dict()
    assert content_of(read_ledger(study)[1]) == content_of(whole[:9])
    assert study.read_bytes() == before
    for evaluated in (len(whole) - 9, 0):
        with open_ledger(study, fingerprint()) as ledger:
            result = run_search(evaluate, SETTINGS, ledger, progress=False)
        assert result.evaluated_now == evaluated
        assert content_of(result.records) == content_of(whole)
        assert content_of(read_ledger(study)[1]) == content_of(whole)
    assert study.read_bytes() == before, "nothing but the export writes the study"
    with open_ledger(study, fingerprint()) as ledger:
        assert ledger.export() == len(whole) - 9
    trials = optuna.load_study(study_name=NAME, storage=f"sqlite:///{study}").trials
    assert [(t.number, tuple(t.user_attrs["architecture"])) for t in trials] == [
        (number, r.architecture) for number, r in enumerate(whole)
    ]


def test_what_it_had_not_written_into_its_study_is_not_evaluated_again(study, whole):
    old_study(study, whole[:5])
    journal = left_over(study, whole[3:9])
    journal.write_text(journal.read_text()[:-20])
    left_over(study, whole[10:12], host="elsewhere.2")
    other = journal.with_name("another.host.1.jsonl")
    other.write_text(journal.read_text())
    evaluated = []

    def noted(architecture):
        evaluated.append(architecture)
        return evaluate(architecture)

    with open_ledger(study, fingerprint()) as ledger:
        result = run_search(noted, SETTINGS, ledger, progress=False)
        assert content_of(result.records) == content_of(whole)
        assert evaluated == [r.architecture for r in [*whole[8:10], *whole[12:]]]
        assert result.evaluated_now == len(evaluated)
    assert content_of(read_ledger(study)[1]) == content_of(whole)
    with open_ledger(study, fingerprint(), discard=True) as ledger:
        assert run_search(noted, SETTINGS, ledger, progress=False).evaluated_now == len(whole)
    assert list(journal.parent.iterdir()) == [other]


def test_left_over_lines_are_taken_when_the_search_has_come_to_them(study, whole):
    old_study(study, [])
    left_over(study, [*whole[:2], *whole[3:9]])  # of two generations, one in the first is missing
    evaluated = []

    def stop_at_once(architecture):
        raise KeyboardInterrupt

    def noted(architecture):
        evaluated.append(architecture)
        return evaluate(architecture)

    with open_ledger(study, fingerprint()) as ledger, pytest.raises(KeyboardInterrupt):
        run_search(stop_at_once, SETTINGS, ledger, progress=False)
    assert len(read_ledger(study)[1]) == 5
    with open_ledger(study, fingerprint()) as ledger:
        result = run_search(noted, SETTINGS, ledger, progress=False)
    assert content_of(result.records) == content_of(whole)
    assert evaluated == [r.architecture for r in [whole[2], *whole[9:]]]


def test_a_study_that_no_search_made_is_refused(study):
    foreign = optuna.create_study(storage=f"sqlite:///{study}", study_name="foreign")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyRefusedError, match=r"study 'foreign' in .*study.db was not made by a slicing search"):
        open_ledger(study, fingerprint(), "foreign")
    assert not (study.parent / "study.evaluations").exists()


def test_a_study_of_another_search_is_refused_with_the_remedy(study, whole):
    old_study(study, whole[:2])
    with pytest.raises(StudyRefusedError, match=r"with fold 0, this search has 1.*deletes the 2 evaluations in it"):
        open_ledger(study, fingerprint(fold=1), NAME)
    with open_ledger(study, fingerprint(fold=1), NAME, discard=True) as ledger:
        assert ledger.records() == []
        ledger.export()
    assert read_ledger(study)[0]["fold"] == 1


def test_a_study_whose_maker_was_killed_before_its_first_word_is_continued(study):
    optuna.create_study(storage=f"sqlite:///{study}", study_name=NAME, direction="maximize")
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(Record((0,) * 5, 0.5, 0, 0, "random", 1.5))
        assert ledger.export() == 1
    assert read_ledger(study)[0] == fingerprint().as_dict()


def test_trials_that_no_search_wrote_are_left_out(study, whole):
    made = old_study(study, whole[:3])
    made.add_trial(optuna.trial.create_trial(value=1.0))
    made.ask()  # for ever running
    with open_ledger(study, fingerprint()) as ledger:
        assert content_of(ledger.records()) == content_of(whole[:3])


def test_beside_a_search_that_was_continued_the_file_still_has_the_others(study, whole):
    old_study(study, whole[:3])
    old_study(study, whole[:4], "second")
    open_ledger(study, fingerprint()).close()
    assert len(read_ledger(study, "second")[1]) == 4
    assert len(read_ledger(study, preferred="second")[1]) == 4
    assert len(read_ledger(study, preferred=NAME)[1]) == 3
    assert len(read_ledger(study, preferred="third")[1]) == 3, "the one that was continued"


@pytest.mark.parametrize("opening", [lambda study: open_ledger(study, fingerprint()), read_ledger])
def test_a_study_that_is_locked_when_it_is_opened_names_the_file_and_the_remedy(study, whole, monkeypatch, opening):
    old_study(study, whole[:1])
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    holder = sqlite3.connect(study, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match=r"study.db .*database is locked\).* Another process holds it: end that one"):
        opening(study)
    holder.close()
    assert len(read_ledger(study)[1]) == 1
