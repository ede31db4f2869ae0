"""The ledger keeps every evaluation, and refuses the evaluations of another search."""

import dataclasses
import math
import sqlite3
from pathlib import Path

import numpy as np
import optuna
import pytest
from sqlalchemy.engine import make_url

from nnunetv2_slicemamba.search import (
    LedgerError,
    NoSearchError,
    Record,
    SearchSettings,
    StudyRefusedError,
    open_ledger,
    read_ledger,
)
from nnunetv2_slicemamba.search.ledger.ledger import storage
from tests.search.killable_search import SETTINGS, fingerprint


def record(index=0, fitness=0.5, generation=0, **details):
    return Record((0, 1, 2, 3, index % 4), fitness, generation, index, "random", 1.5, details)


@pytest.fixture
def study(tmp_path) -> Path:
    return tmp_path / "slicing_search" / "study.db"


def test_an_evaluation_is_kept_with_all_that_is_known_of_it(study):
    with open_ledger(study, fingerprint()) as ledger:
        added = ledger.add(record(3, 0.75, generation=2, dice_per_class=np.array([0.5, 1.0]), voxels=np.int64(7)))
    assert added.details == {"dice_per_class": [0.5, 1.0], "voxels": 7}
    with open_ledger(study, fingerprint()) as ledger:
        assert ledger.records() == [added]
    stored, records = read_ledger(study)
    assert stored == fingerprint().as_dict()
    assert records == [added]


def test_a_stored_trial_is_one_that_optunas_tools_understand(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(3, 0.75, generation=2, dice=0.5))
    (trial,) = optuna.load_study(study_name=fingerprint().study_name, storage=f"sqlite:///{study}").trials
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.value == 0.75
    assert trial.params == {"block_00": 0, "block_01": 1, "block_02": 2, "block_03": 3, "block_04": 3}
    assert trial.distributions["block_04"] == optuna.distributions.CategoricalDistribution((0, 1, 2, 3))
    assert trial.user_attrs == {
        "architecture": [0, 1, 2, 3, 3],
        "generation": 2,
        "index": 3,
        "origin": "random",
        "seconds": 1.5,
        "dice": 0.5,
    }
    assert trial.duration is not None
    assert trial.duration.total_seconds() == pytest.approx(1.5)
    study_read = optuna.load_study(study_name=fingerprint().study_name, storage=f"sqlite:///{study}")
    assert study_read.direction == optuna.study.StudyDirection.MAXIMIZE


def test_an_undefined_fitness_is_kept_as_a_failed_trial_and_comes_back_as_nan(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0, math.nan, dice_per_class=[math.nan, 0.5]))
    with open_ledger(study, fingerprint()) as ledger:
        (back,) = ledger.records()
    assert math.isnan(back.fitness)
    assert back.architecture == (0, 1, 2, 3, 0)
    assert back.details == {"dice_per_class": [None, 0.5]}
    (trial,) = optuna.load_study(study_name=fingerprint().study_name, storage=f"sqlite:///{study}").trials
    assert trial.state == optuna.trial.TrialState.FAIL
    assert len(trial.params) == 5


def test_records_come_by_generation_and_index_whatever_the_order_of_writing(study):
    with open_ledger(study, fingerprint()) as ledger:
        for generation, index in [(1, 0), (0, 2), (0, 0), (0, 1)]:
            ledger.add(record(index, generation=generation))
    with open_ledger(study, fingerprint()) as ledger:
        assert [(r.generation, r.index) for r in ledger.records()] == [(0, 0), (0, 1), (0, 2), (1, 0)]


@pytest.fixture(scope="module")
def named_study(tmp_path_factory) -> Path:
    study = tmp_path_factory.mktemp("named") / "study.db"
    with open_ledger(study, fingerprint(), "the study") as ledger:
        ledger.add(record())
    return study


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": dataclasses.replace(SETTINGS, seed=8)}, "made with seed 7, this search has 8"),
        ({"settings": SearchSettings(9, 4, 3, 3, 3, seed=7)}, "with population 6, this search has 9"),
        ({"settings": dataclasses.replace(SETTINGS, generations=5)}, "with generations 4, this search has 5"),
        ({"settings": dataclasses.replace(SETTINGS, parents=4)}, "with parents 3, this search has 4"),
        ({"settings": dataclasses.replace(SETTINGS, mutants=2)}, "with mutants 3, this search has 2"),
        ({"settings": dataclasses.replace(SETTINGS, crossovers=2)}, "with crossovers 3, this search has 2"),
        (
            {"settings": dataclasses.replace(SETTINGS, mutation_probability=0.2)},
            "with mutation probability 0.1, this search has 0.2",
        ),
        (
            {"supernet_checkpoint_sha256": "c" * 64},
            r"with supernet checkpoint \(SHA-256\) aaaaaaaaaaaa..., this search has cccccccccccc...",
        ),
        (
            {"plans_sha256": "c" * 64},
            r"with plans content \(SHA-256\) bbbbbbbbbbbb..., this search has cccccccccccc...",
        ),
        ({"dataset": "Dataset998_Other"}, "with dataset Dataset999_Test, this search has Dataset998_Other"),
        ({"trainer": "Other"}, "with trainer SliceMambaSupernetTrainer, this search has Other"),
        ({"plans_name": "Other"}, "with plans nnUNetSliceMambaSPlans, this search has Other"),
        ({"configuration": "3d_fullres"}, "with configuration 2d, this search has 3d_fullres"),
        ({"fold": 1}, "with fold 0, this search has 1"),
        ({"fold": "all"}, "with fold 0, this search has all"),
        ({"n_blocks": 6}, "with number of blocks 5, this search has 6"),
        ({"candidates": ((2, 2), (4, 4))}, r"with candidates \[\[2, 2\], .*\], this search has \[\[2, 2\], \[4, 4\]\]"),
        ({"fitness_definition": "IoU"}, "with fitness definition mean .*, this search has IoU"),
        ({"evaluation": {"tile_step_size": 1.0}}, "with tile step size None, this search has 1.0"),
    ],
)
def test_a_study_of_another_search_is_refused_with_both_values_and_the_remedy(named_study, changes, words):
    before = named_study.read_bytes()
    with pytest.raises(StudyRefusedError, match=words) as refusal:
        open_ledger(named_study, fingerprint(**changes), "the study")
    assert f"study 'the study' in {named_study} was made with" in str(refusal.value)
    assert "another study (--study NAME), or start anew (--discard deletes the 1 evaluations" in str(refusal.value)
    assert named_study.read_bytes() == before, "the refused search changed the study"


def test_a_study_of_another_schema_is_refused(study, monkeypatch):
    open_ledger(study, fingerprint()).close()
    monkeypatch.setattr("nnunetv2_slicemamba.search.fingerprint.SCHEMA_VERSION", 2)
    with pytest.raises(StudyRefusedError, match="with ledger schema version 1, this search has 2"):
        open_ledger(study, fingerprint())


def test_all_differences_are_named_at_once(study):
    open_ledger(study, fingerprint(), "s").close()
    with pytest.raises(StudyRefusedError, match="made with fold 0, this search has 1; with seed 7, this search has 8"):
        open_ledger(study, fingerprint(dataclasses.replace(SETTINGS, seed=8), fold=1), "s")


def test_a_study_that_no_search_made_is_refused(study):
    study.parent.mkdir()
    foreign = optuna.create_study(storage=f"sqlite:///{study}", study_name="foreign")
    with pytest.raises(StudyRefusedError, match="not made by a slicing search"):  # it is empty, but minimizes
        open_ledger(study, fingerprint(), "foreign")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyRefusedError, match=r"study 'foreign' in .* was not made by a slicing search"):
        open_ledger(study, fingerprint(), "foreign")


def test_a_study_whose_maker_was_killed_before_its_first_word_is_continued(study):
    study.parent.mkdir()
    name = fingerprint().study_name
    optuna.create_study(storage=f"sqlite:///{study}", study_name=name, direction="maximize")
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record())
    assert read_ledger(study)[0] == fingerprint().as_dict()


def test_discard_begins_anew_and_leaves_other_studies_alone(study):
    for name in ("mine", "other"):
        with open_ledger(study, fingerprint(), name) as ledger:
            ledger.add(record())
    with open_ledger(study, fingerprint(fold=3), "mine", discard=True) as ledger:
        assert ledger.records() == []
    assert read_ledger(study, "mine")[0]["fold"] == 3
    assert len(read_ledger(study, "other")[1]) == 1
    with open_ledger(study, fingerprint(), "never there", discard=True) as ledger:
        assert ledger.records() == []


def test_folds_of_all_kinds_have_studies_of_their_own(study):
    names = [
        fingerprint(**changes).study_name
        for changes in (
            {},
            {"fold": 1},
            {"configuration": "3d_fullres"},
            {"plans_name": "P"},
            {"dataset": "D"},
            {"trainer": "T"},
        )
    ]
    assert names[0] == "Dataset999_Test/SliceMambaSupernetTrainer__nnUNetSliceMambaSPlans__2d/fold_0"
    assert len(set(names)) == len(names)


def test_trials_that_no_search_wrote_are_left_out(study):
    with open_ledger(study, fingerprint()) as ledger:
        kept = ledger.add(record())
    other = optuna.load_study(study_name=fingerprint().study_name, storage=f"sqlite:///{study}")
    other.add_trial(optuna.trial.create_trial(value=1.0))
    other.ask()  # for ever running
    with open_ledger(study, fingerprint()) as ledger:
        assert ledger.records() == [kept]


def test_a_second_writer_is_noticed_and_the_older_of_two_equal_records_counts(study):
    with open_ledger(study, fingerprint()) as first, open_ledger(study, fingerprint()) as second:
        older = first.add(record(0, 0.25))
        with pytest.raises(LedgerError, match="has 1 trials where this search left 0: another process writes to it"):
            second.add(record(0, 0.75))
        second._next_check = math.inf  # as if it had looked a moment ago
        second.add(record(0, 0.75))
    with open_ledger(study, fingerprint()) as ledger:
        assert ledger.records() == [older]


def test_a_place_is_taken_once_and_details_must_be_json(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        with pytest.raises(ValueError, match="generation 0 already has an evaluation number 0"):
            ledger.add(record(0))
        with pytest.raises(ValueError, match="generation 0 already has an evaluation number 1"):
            ledger.add(record(1), record(1))
        with pytest.raises(ValueError, match=r"JSON cannot hold .* a object"):
            ledger.add(record(1, thing=object()))
        with pytest.raises(ValueError, match="details may not be named seconds"):
            ledger.add(record(1, seconds=3))
    assert len(read_ledger(study)[1]) == 1


def test_a_locked_ledger_says_what_is_kept(study, monkeypatch):
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # Optuna waits between its attempts
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        holder = sqlite3.connect(study, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            LedgerError,
            match=r"could not be written to .*\(database is locked\). The 1 evaluations before it are kept .* end that",
        ):
            ledger.add(record(1))
        holder.close()
        ledger.add(record(1))
    assert len(read_ledger(study)[1]) == 2


@pytest.mark.parametrize("opening", [lambda study: open_ledger(study, fingerprint()), read_ledger])
def test_a_ledger_that_is_locked_when_it_is_opened_names_the_file_and_the_remedy(study, monkeypatch, opening):
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
    holder = sqlite3.connect(study, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match=r"study.db .*database is locked\).* Another process holds it: end that one"):
        opening(study)
    holder.close()
    assert len(read_ledger(study)[1]) == 1


def test_a_full_disk_says_what_is_kept_and_with_room_the_search_goes_on(study, monkeypatch):
    """SQLite's own error, from a file that may not grow."""
    connect, limits = sqlite3.connect, []

    def connect_limited(file, **arguments):
        connection = connect(file, **arguments)
        for limit in limits:
            connection.execute(f"PRAGMA max_page_count = {limit}")
        return connection

    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
    monkeypatch.setattr(storage.sqlite3, "connect", connect_limited)
    limits.append(1)  # SQLite takes the present size for a limit that is below it
    large = "x" * 100_000
    with open_ledger(study, fingerprint()) as ledger:
        with pytest.raises(
            LedgerError, match=r"\(database or disk is full\). The 1 evaluations .* Make room on the disk"
        ):
            ledger.add(record(1, note=large))
        assert [r.index for r in ledger.records()] == [0]
    limits.clear()
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(1, note=large))
    assert [r.index for r in read_ledger(study)[1]] == [0, 1]


def test_a_storage_that_fails_to_write_says_what_is_kept(study, monkeypatch):
    def fail(*arguments, **named):
        raise optuna.exceptions.StorageInternalError("the commit failed") from ConnectionError("server closed")

    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        monkeypatch.setattr("nnunetv2_slicemamba.search.ledger.bulk_trials._insert", fail)
        with pytest.raises(LedgerError, match=r"\(server closed\). The 1 evaluations before it are kept .*server must"):
            ledger.add(record(1))
    assert len(read_ledger(study)[1]) == 1


def test_reading_makes_no_file_and_no_table(tmp_path):
    file = tmp_path / "study.db"
    for where in (file, f"sqlite:///{file}"):
        with pytest.raises(NoSearchError, match="no such file"):
            read_ledger(where)
    assert not file.exists()
    sqlite3.connect(file).close()
    before = file.read_bytes()
    with pytest.raises(LedgerError):
        read_ledger(file)
    assert file.read_bytes() == before


def test_a_file_that_is_no_study_is_named_with_the_remedy(study):
    study.parent.mkdir()
    study.write_text("this is not a database, but long enough to be taken for a broken one" * 20)
    with pytest.raises(
        LedgerError, match=r"cannot open .*study.db as a study \(file is not a database\).* Move a damaged"
    ):
        open_ledger(study, fingerprint())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"cannot open .*file/slicing_search/study.db .* Is the folder writable"):
        open_ledger(tmp_path / "file" / "slicing_search" / "study.db", fingerprint())


def test_a_storage_that_does_not_exist_is_an_error(tmp_path):
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(LedgerError, match="in memory and would keep nothing; give a file"):
            open_ledger(url, fingerprint())
    with pytest.raises(LedgerError, match="cannot open nosuchdatabase://host/x as a study"):
        open_ledger("nosuchdatabase://host/x", fingerprint())


def test_reading_what_is_not_there_says_so(study):
    with pytest.raises(LedgerError, match=r"no search in .*study.db: no such file. Run `slicemamba search`"):
        read_ledger(study)
    assert not study.exists()
    open_ledger(study, fingerprint(), "a").close()
    with pytest.raises(LedgerError, match="has no study 'b'"):
        read_ledger(study, "b")
    open_ledger(study, fingerprint(), "b").close()
    with pytest.raises(LedgerError, match=r"2 studies \(a, b\); name one"):
        read_ledger(study)
    with pytest.raises(LedgerError, match=r"2 studies \(a, b\); name one"):
        read_ledger(study, preferred="c")
    assert read_ledger(study, preferred="b") == (fingerprint().as_dict(), [])


@pytest.mark.parametrize("folder", ["with space", "100% {of} it", "a#b?c", "ü"])
def test_any_folder_name_works(tmp_path, folder):
    file = tmp_path / folder / "study.db"
    with open_ledger(file, fingerprint()) as ledger:
        ledger.add(record())
        assert ledger.location == str(file)
    assert file.is_file()
    assert len(read_ledger(file)[1]) == 1


def test_an_sqlite_url_is_the_same_as_its_file(study):
    study.parent.mkdir()
    with open_ledger(f"sqlite:///{study}", fingerprint()) as ledger:
        ledger.add(record())
    assert len(read_ledger(study)[1]) == 1


def test_a_password_is_not_shown():
    url = "postgresql://me:secret@host:5432/db"
    assert make_url(url).password == "secret"
    assert storage.location_of(url) == "postgresql://me:***@host:5432/db"


def test_optuna_is_silent_and_its_verbosity_is_left_as_it_was(study, capfd):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        with open_ledger(study, fingerprint()) as ledger:
            ledger.add(record())
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")
