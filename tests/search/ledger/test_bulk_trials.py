"""Writing trials fast leaves the database that Optuna's own storage would have written."""

import math
import sqlite3
import threading
from dataclasses import replace

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from nnunetv2_slicemamba.search import Record, open_ledger, read_ledger
from nnunetv2_slicemamba.search.ledger.bulk_trials import add_trials, count_trials, looks_known
from nnunetv2_slicemamba.search.ledger.ledger import bulk_trials
from nnunetv2_slicemamba.search.ledger.trials import trial_of
from tests.search.killable_search import fingerprint

RECORDS_TO_COMPARE = [
    Record((0, 1, 2, 3, 0), 0.5, 0, 0, "random", 1.5, {"dice_per_class": [0.5, None], "note": "a"}),
    Record((3, 3, 2, 1, 0), math.nan, 0, 1, "mutant", 0.25),
    Record((0, 0, 0, 0, 0), 0.75, 1, 0, "tpe", 0.0, {"nested": {"a": [1, 2.5]}}),
]
TABLES = {
    "trials": "number, state, datetime_start, datetime_complete",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_user_attributes": "trial_id, key, value_json",
}


@pytest.mark.parametrize("cost", [None, 3.5])
def test_the_study_is_the_one_that_optunas_own_storage_would_hold(tmp_path, cost):
    """What makes writing fast changes nothing that anybody reads."""
    if not looks_known(models):
        pytest.skip("this Optuna's tables look otherwise, so it writes them itself")
    records = [replace(record, cost=cost) for record in RECORDS_TO_COMPARE]
    trials = [trial_of(record, (4, 4, 3, 4, 2), two_values=cost is not None) for record in records]
    read, others = [], optuna.trial.create_trial(value=1.0)
    for name in ("ours", "optunas"):
        database = RDBStorage(f"sqlite:///{tmp_path / name}.db")
        optuna.create_study(storage=database, study_name="another", direction="minimize").add_trial(others)
        directions = ["maximize"] * (1 if cost is None else 2)
        study = optuna.create_study(storage=database, study_name="s", directions=directions)
        if name == "ours":
            add_trials(database, study, trials[:1])
            add_trials(database, study, trials[1:])
        else:
            for trial in trials:
                study.add_trial(trial)
        assert count_trials(database, study) == len(trials)
        found = optuna.load_study(study_name="s", storage=RDBStorage(f"sqlite:///{tmp_path / name}.db"))
        read.append([(t.number, t.state, t.values, t.params, t.distributions, t.user_attrs) for t in found.trials])
        connection = sqlite3.connect(tmp_path / f"{name}.db")
        for table, columns in TABLES.items():
            read[-1].append(sorted(connection.execute(f"select {columns} from {table}").fetchall()))
    assert read[0] == read[1]
    assert len(read[0]) == len(trials) + len(TABLES)


@pytest.mark.parametrize("known", [True, False], ids=["our statements", "Optuna's own"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": (0, 1, 2, 3, 4)}, r"\(0, 1, 2, 3, 4\) is no architecture of a network whose blocks have"),
        ({"architecture": (0, 1, 2, 3, -1)}, "is no architecture"),
        ({"architecture": (0, 1, 2, 3)}, "is no architecture"),
        ({"cost": math.nan}, "the cost of .* is nan"),
    ],
)
def test_of_evaluations_one_of_which_cannot_be_kept_none_is_written(tmp_path, monkeypatch, known, changes, words):
    monkeypatch.setattr(bulk_trials, "looks_known", lambda models: known)
    first, _, last = RECORDS_TO_COMPARE
    with open_ledger(tmp_path / "study.db", fingerprint()) as ledger:
        with pytest.raises(ValueError, match=words):
            ledger.add(first, replace(first, index=5, **changes))
        ledger.add(last)
    assert read_ledger(tmp_path / "study.db")[1] == [last]


def test_of_several_trials_all_are_written_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    database = RDBStorage(f"sqlite:///{tmp_path / 'a.db'}")
    study = optuna.create_study(storage=database, study_name="s", direction="maximize")
    trials = [trial_of(record, (4,) * 5) for record in RECORDS_TO_COMPARE]
    trials[-1].user_attrs["unwritable"] = object()
    with pytest.raises(TypeError):
        add_trials(database, study, trials)
    assert count_trials(database, study) == 0
    add_trials(database, study, trials[:2])
    assert [t.number for t in study.trials] == [0, 1]


def test_tables_that_look_otherwise_are_left_to_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(bulk_trials._KNOWN, "TrialParamModel", ("param_id", "trial_id", "name", "value"))
    assert not looks_known(models)
    database = RDBStorage(f"sqlite:///{tmp_path / 'a.db'}")
    study = optuna.create_study(storage=database, study_name="s", direction="maximize")
    called = []
    monkeypatch.setattr(study, "add_trial", called.append)
    trials = [trial_of(record, (4,) * 5) for record in RECORDS_TO_COMPARE]
    add_trials(database, study, trials)
    assert called == trials


def test_two_writers_at_once_give_every_trial_a_number_of_its_own(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    optuna.create_study(storage=RDBStorage(url), study_name="s", direction="maximize")
    meet, failed = threading.Barrier(2), []

    def write(first: int) -> None:
        try:
            database = RDBStorage(url, {"connect_args": {"timeout": 20}})
            study = optuna.load_study(study_name="s", storage=database)
            meet.wait()
            for i in range(first, first + 12):
                add_trials(database, study, [trial_of(Record((i % 4,), 0.5, 0, i, "random", 0.0), (4,))])
        except Exception as error:  # a thread's would be lost
            failed.append(error)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    numbers = sqlite3.connect(tmp_path / "a.db").execute("select number from trials").fetchall()
    assert sorted(numbers) == [(i,) for i in range(24)]


def test_a_study_that_is_gone_takes_nothing_even_if_another_has_its_name(tmp_path):
    database = RDBStorage(f"sqlite:///{tmp_path / 'a.db'}")
    study = optuna.create_study(storage=database, study_name="s", direction="maximize")
    optuna.create_study(storage=database, study_name="other", direction="maximize")  # so that its ID is not used again
    optuna.delete_study(study_name="s", storage=database)
    another = optuna.create_study(storage=database, study_name="s", direction="maximize")
    with pytest.raises(optuna.exceptions.StorageInternalError, match="the study was deleted"):
        add_trials(database, study, [trial_of(RECORDS_TO_COMPARE[0], (4,) * 5)])
    assert (count_trials(database, study), count_trials(database, another)) == (0, 0)
