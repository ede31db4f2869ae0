"""The ledger keeps every evaluation, and refuses the evaluations of another search."""

import dataclasses
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_slicemamba.search import (
    LedgerError,
    NoSearchError,
    Record,
    SearchSettings,
    StudyRefusedError,
    open_ledger,
    read_ledger,
)
from nnunetv2_slicemamba.search.ledger.ledger import has_ledger
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


def test_an_undefined_fitness_is_kept_and_comes_back_as_nan(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0, math.nan, dice_per_class=[math.nan, 0.5]))
    with open_ledger(study, fingerprint()) as ledger:
        (back,) = ledger.records()
    assert math.isnan(back.fitness)
    assert back.architecture == (0, 1, 2, 3, 0)
    assert back.details == {"dice_per_class": [None, 0.5]}


def test_a_cost_is_kept_and_none_where_none_was_measured(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(replace(record(0), cost=4.25))
        ledger.add(record(1))
    assert [r.cost for r in read_ledger(study)[1]] == [4.25, None]


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
    folder = named_study.with_name("study.evaluations")
    (file,) = folder.glob("*.jsonl")
    before = file.read_bytes()
    with pytest.raises(StudyRefusedError, match=words) as refusal:
        open_ledger(named_study, fingerprint(**changes), "the study")
    assert f"study 'the study' in {folder} was made with" in str(refusal.value)
    assert "another study (--study NAME), or start anew (--discard deletes the 1 evaluations" in str(refusal.value)
    assert file.read_bytes() == before, "the refused search changed the evaluations"


def test_a_study_of_another_schema_is_refused(study, monkeypatch):
    open_ledger(study, fingerprint()).close()
    monkeypatch.setattr("nnunetv2_slicemamba.search.fingerprint.SCHEMA_VERSION", 2)
    with pytest.raises(StudyRefusedError, match="with ledger schema version 1, this search has 2"):
        open_ledger(study, fingerprint())


def test_all_differences_are_named_at_once(study):
    open_ledger(study, fingerprint(), "s").close()
    with pytest.raises(StudyRefusedError, match="made with fold 0, this search has 1; with seed 7, this search has 8"):
        open_ledger(study, fingerprint(dataclasses.replace(SETTINGS, seed=8), fold=1), "s")


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


def test_a_place_is_taken_once_and_details_must_be_json(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        with pytest.raises(ValueError, match="generation 0 already has an evaluation number 0"):
            ledger.add(record(0))
        with pytest.raises(ValueError, match=r"JSON cannot hold .* a object"):
            ledger.add(record(1, thing=object()))
        with pytest.raises(ValueError, match="details may not be named seconds"):
            ledger.add(record(1, seconds=3))
    assert len(read_ledger(study)[1]) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": (0, 1, 2, 3, 4)}, r"\(0, 1, 2, 3, 4\) is no architecture of a network whose blocks have"),
        ({"architecture": (0, 1, 2, 3, -1)}, "is no architecture"),
        ({"architecture": (0, 1, 2, 3)}, "is no architecture"),
        ({"cost": math.nan}, "the cost of .* is nan"),
    ],
)
def test_an_evaluation_that_cannot_be_of_this_search_is_not_kept(study, changes, words):
    with open_ledger(study, fingerprint()) as ledger:
        with pytest.raises(ValueError, match=words):
            ledger.add(replace(record(5), **changes))
        ledger.add(record(5))
    assert read_ledger(study)[1] == [record(5)]


def test_a_second_writer_is_noticed_with_its_first_evaluation(study):
    with open_ledger(study, fingerprint()) as first, open_ledger(study, fingerprint()) as second:
        older = first.add(record(0, 0.25))
        with pytest.raises(LedgerError, match=r"bytes where this search left .*: another process writes to it"):
            second.add(record(0, 0.75))
        first.add(record(1))
    with open_ledger(study, fingerprint()) as ledger:
        assert ledger.records() == [older, record(1)]


def test_a_search_that_another_process_discards_says_so_and_writes_nowhere(study):
    with open_ledger(study, fingerprint()) as ledger:
        ledger.add(record(0))
        with open_ledger(study, fingerprint(), discard=True) as anew:
            with pytest.raises(LedgerError, match="another process deleted .*--discard"):
                ledger.add(record(1))
            anew.add(record(2))
    assert read_ledger(study)[1] == [record(2)]


def test_an_evaluation_is_kept_before_the_process_can_be_killed(study):
    """Not even the process's exit is needed, which would flush what it had written so far."""
    code = (
        "import os, sys; from tests.search.killable_search import evaluate, fingerprint;"
        "from nnunetv2_slicemamba.search import Record, open_ledger;"
        "open_ledger(sys.argv[1], fingerprint()).add(Record((0,) * 5, 0.5, 0, 0, 'random', 1.0)); os._exit(1)"
    )
    paths = os.pathsep.join(filter(None, sys.path))
    subprocess.run([sys.executable, "-c", code, str(study)], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert [r.architecture for r in read_ledger(study)[1]] == [(0,) * 5]


def test_a_ledger_of_thousands_of_evaluations_opens_in_time_that_grows_as_they_do(study):
    def seconds_to_open(n: int) -> float:
        file = study.with_name(f"{n}.db")
        with open_ledger(file, fingerprint()) as ledger:
            for i in range(n):
                ledger.add(record(i % 50, generation=i // 50, dice_per_class=[0.5, 0.25]))
        best = math.inf
        for _ in range(3):
            began = time.process_time()
            with open_ledger(file, fingerprint()) as ledger:
                assert len(ledger.records()) == n
            best = min(best, time.process_time() - began)
        return best

    few, many = seconds_to_open(2_000), seconds_to_open(20_000)
    assert many < 5
    assert many < 30 * few


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"no search can be kept in .*study.evaluations .* Make the folder writable"):
        open_ledger(tmp_path / "file" / "slicing_search" / "study.db", fingerprint())


def test_reading_what_is_not_there_says_so(study):
    for where in (study, f"sqlite:///{study}"):
        with pytest.raises(NoSearchError, match=r"no search in .*study.db. Run `slicemamba search`"):
            read_ledger(where)
        assert not has_ledger(where)
    assert not study.parent.exists(), "reading made something"
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
        assert ledger.location == str(file.with_name("study.evaluations"))
        assert ledger.export() == 1
    assert file.is_file()
    assert len(read_ledger(file)[1]) == 1


def test_an_sqlite_url_is_the_same_as_its_file(study):
    with open_ledger(f"sqlite:///{study}", fingerprint()) as ledger:
        ledger.add(record())
    assert len(read_ledger(study)[1]) == 1


def test_evaluations_lie_in_the_folder_that_is_given_wherever_the_study_belongs(study, tmp_path):
    folder = tmp_path / "fold"
    with open_ledger(study, fingerprint(), folder=folder) as ledger:
        ledger.add(record())
    assert read_ledger(study, folder=folder)[1] == read_ledger(folder / "study.db")[1] == [record()]
    assert not has_ledger(study)
    with pytest.raises(
        LedgerError, match=r"cannot be kept in postgresql://me:\*\*\*@host/db.* give a folder"
    ) as refusal:
        open_ledger("postgresql://me:secret@host/db", fingerprint())
    assert "secret" not in str(refusal.value)


def test_a_study_in_memory_is_refused():
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(LedgerError, match="in memory and would keep nothing; give a file"):
            open_ledger(url, fingerprint())


def test_neither_optuna_nor_a_database_is_needed_to_search(study):
    code = (
        "import sys; from tests.search.killable_search import SETTINGS, evaluate, fingerprint;"
        "from nnunetv2_slicemamba.search import open_ledger, read_ledger, run_search;"
        "ledger = open_ledger(sys.argv[1], fingerprint()); run_search(evaluate, SETTINGS, ledger, progress=False);"
        "print(len(read_ledger(sys.argv[1])[1]), [m for m in ('optuna', 'sqlalchemy') if m in sys.modules])"
    )
    paths = os.pathsep.join(filter(None, sys.path))
    call = [sys.executable, "-c", code, str(study)]
    ran = subprocess.run(call, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["30", "[]"]
