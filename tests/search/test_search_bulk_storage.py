"""Writing trials fast leaves the database that Optuna's own storage would have written."""

import math
import sqlite3

import optuna
import pytest
from optuna.storages import RDBStorage

from nnunetv2_slicemamba.search import Record
from nnunetv2_slicemamba.search.bulk_storage import bulk_storage_class
from nnunetv2_slicemamba.search.trials import trial_of

RECORDS_TO_COMPARE = [
    Record((0, 1, 2, 3, 0), 0.5, 0, 0, "random", 1.5, {"dice_per_class": [0.5, None], "note": "a"}),
    Record((3, 3, 2, 1, 0), math.nan, 0, 1, "mutant", 0.25),
    Record((0, 0, 0, 0, 0), 0.75, 1, 0, "tpe", 0.0, {"nested": {"a": [1, 2.5]}}),
]


def test_the_study_is_the_one_that_optunas_own_storage_would_hold(tmp_path):
    """What makes writing fast changes nothing that anybody reads."""
    class_ = bulk_storage_class()
    if class_ is RDBStorage:
        pytest.skip("this Optuna's storage looks otherwise than the one that ours extends, so it is used as it is")
    trials = [trial_of(record, (4,) * 5) for record in RECORDS_TO_COMPARE]
    read = []
    for name, kind in (("ours", class_), ("optunas", RDBStorage)):
        database = kind(f"sqlite:///{tmp_path / name}.db")
        study = optuna.create_study(storage=database, study_name="s", direction="maximize")
        for trial in trials:
            study.add_trial(trial)
        found = optuna.load_study(study_name="s", storage=RDBStorage(f"sqlite:///{tmp_path / name}.db"))
        read.append([(t.number, t.state, t.values, t.params, t.distributions, t.user_attrs) for t in found.trials])
        tables = sqlite3.connect(tmp_path / f"{name}.db")
        rows = "select trial_id, param_name, param_value, distribution_json from trial_params order by 1, 2"
        read[-1].append(tables.execute(rows).fetchall())
    assert read[0] == read[1]
    assert len(read[0]) == len(trials) + 1


def test_a_storage_that_looks_otherwise_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(RDBStorage, "_set_trial_param_without_commit", lambda self, anything: None)
    assert bulk_storage_class() is RDBStorage
