"""Why does keeping evaluations not cost as much as making them?

Optuna's storage writes a finished trial parameter by parameter, and before each asks the database for the trial and for
an earlier distribution of that name: about ninety statements, 40 ms of CPU, for a network of 22 blocks. Here a few
statements write all the rows of several trials, in one transaction, into the same tables.
"""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from sqlalchemy import CursorResult

# As Optuna's storage does: two machines' writers may lock each other out.
ATTEMPTS, WAIT_SECONDS = 5, 2.0

# Optuna's tables are not part of its public interface. Where they look otherwise, its own way is taken.
_KNOWN = {
    "TrialModel": ("trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"),
    "TrialValueModel": ("trial_value_id", "trial_id", "objective", "value", "value_type"),
    "TrialParamModel": ("param_id", "trial_id", "param_name", "param_value", "distribution_json"),
    "TrialUserAttributeModel": ("trial_user_attribute_id", "trial_id", "key", "value_json"),
}


def add_trials(storage: RDBStorage, study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
    """Adds finished trials, with parameters, values and user attributes, in this order.

    All of them or none, unless Optuna's tables have changed and it adds them one by one. storage: the study's, without
    Optuna's cache. Raises what SQLAlchemy and Optuna raise, StorageInternalError if the study is not there any more.
    """
    from optuna.storages._rdb import models
    from sqlalchemy.exc import OperationalError

    if not looks_known(models):
        for trial in trials:
            study.add_trial(trial)
        return
    for attempt in range(ATTEMPTS):
        try:
            _insert(storage, models, study._study_id, trials)
            return
        except OperationalError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.random() * WAIT_SECONDS)


def count_trials(storage: RDBStorage, study: optuna.Study) -> int:
    """Trials of a study in the database; Optuna's own count reads all that it does not know yet."""
    from sqlalchemy import text

    # by its ID: another study may have got its name
    statement = text("SELECT COUNT(*) FROM trials WHERE study_id = :study")
    with storage.engine.connect() as connection:
        return int(connection.execute(statement, {"study": study._study_id}).scalar_one())


def looks_known(models: Any) -> bool:
    """Whether Optuna's tables have the columns that are written here, and no others."""
    tables = [getattr(models, name, None) for name in _KNOWN]
    return hasattr(tables[1], "value_to_stored_repr") and all(
        table is not None and sorted(column.name for column in table.__table__.columns) == sorted(columns)
        for table, columns in zip(tables, _KNOWN.values(), strict=True)
    )


def _insert(storage: RDBStorage, models: Any, study_id: int, trials: Sequence[optuna.trial.FrozenTrial]) -> None:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import func, insert, select, update
    from sqlalchemy.orm import Session

    with Session(storage.engine) as session, session.begin():
        # Numbers are counted, so nobody else may add a trial meanwhile. SQLite locks for a writing statement only.
        of_study = models.StudyModel.study_id == study_id
        locking = update(models.StudyModel).where(of_study).values(study_id=study_id)
        if cast("CursorResult[Any]", session.execute(locking)).rowcount == 0:
            raise StorageInternalError("the study was deleted")
        before = select(func.count(models.TrialModel.trial_id)).where(models.TrialModel.study_id == study_id)
        first = session.execute(before).scalar_one()
        made = [
            models.TrialModel(
                study_id=study_id,
                number=first + i,
                state=trial.state,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
            )
            for i, trial in enumerate(trials)
        ]
        session.add_all(made)
        session.flush()
        values, parameters, attributes = list[dict](), list[dict](), list[dict]()
        for row, trial in zip(made, trials, strict=True):
            of = {"trial_id": row.trial_id}
            for objective, value in enumerate(trial.values or ()):
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                values.append({**of, "objective": objective, "value": stored, "value_type": kind})
            for name, value in trial.params.items():
                choices = trial.distributions[name]
                number, described = choices.to_internal_repr(value), _as_json(choices)
                parameters.append({**of, "param_name": name, "param_value": number, "distribution_json": described})
            for key, value in trial.user_attrs.items():
                attributes.append({**of, "key": key, "value_json": json.dumps(value)})
        tables = (models.TrialValueModel, models.TrialParamModel, models.TrialUserAttributeModel)
        for table, rows in zip(tables, (values, parameters, attributes), strict=True):
            if rows:
                # of the table, not of its class, which SQLAlchemy would look through row by row
                session.execute(insert(table.__table__), rows)


@functools.lru_cache
def _as_json(distribution: optuna.distributions.BaseDistribution) -> str:
    """Blocks have the same few."""
    from optuna.distributions import distribution_to_json

    return distribution_to_json(distribution)
