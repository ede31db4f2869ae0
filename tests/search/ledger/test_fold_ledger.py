"""A fold with several studies: whoever reads its evaluations reads those of its result."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_slicemamba.comparison.rank import _from_ledger
from nnunetv2_slicemamba.planning.fold_folder import SupernetFolder
from nnunetv2_slicemamba.planning.selection import Selection
from nnunetv2_slicemamba.report.searches import read_search
from nnunetv2_slicemamba.search.choosing.set_slicing import fold_histories
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION
from nnunetv2_slicemamba.search.ledger.fold_ledger import read_fold_ledger
from nnunetv2_slicemamba.search.ledger.ledger import open_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError
from nnunetv2_slicemamba.search.records import Record
from nnunetv2_slicemamba.search.settings import SearchSettings
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.file import SlicingFile, write_slicing_file
from nnunetv2_slicemamba.slicing.find import SLICING_FILE, STUDY_FILE

CANDIDATES = ((2, 2), (4, 4))
HASHES = ("a" * 64, "b" * 64)


@pytest.fixture
def supernet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SupernetFolder:
    """A fold whose result is from the second of two studies, whose only evaluation is (1, 1, 1)."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    supernet = SupernetFolder(Selection("Dataset001_A", {}, "P", "2d", 0), "SliceMambaSupernetTrainer")
    folder = supernet.search
    for seed, study in enumerate((None, "second")):
        settings = SearchSettings(2, 0, 1, seed=seed)
        names = ("Dataset001_A", "SliceMambaSupernetTrainer", "P", "2d", 0)
        fingerprint = Fingerprint(*names, *HASHES, 3, CANDIDATES, settings)
        with open_ledger(folder / STUDY_FILE, fingerprint, study) as ledger:
            ledger.add(Record((seed,) * 3, 0.5 + 0.1 * seed, 0, 0, "random", 1.0))
    choice = SlicingChoice(((4, 4),) * 3, "search", (1, 1, 1), 0.6, 1, {"study": "second"})
    content = SlicingFile(choice, CANDIDATES, FITNESS_DEFINITION, "Dataset001_A", "2d", "P", 0, *HASHES)
    write_slicing_file(content, folder / SLICING_FILE)
    return supernet


def test_of_several_studies_the_one_of_the_result_is_read(supernet: SupernetFolder) -> None:
    assert [record.architecture for record in read_fold_ledger(supernet.search)[1]] == [(1, 1, 1)]
    assert fold_histories(supernet) == {0: [((1, 1, 1), 0.6)]}
    assert _from_ledger(supernet, {}) == {(1, 1, 1): 0.6}
    search = read_search(supernet.path)
    assert search is not None
    assert [record.architecture for record in search.records] == [(1, 1, 1)]
    assert search.problems == ()


def test_without_a_result_the_choice_is_asked_for(supernet: SupernetFolder) -> None:
    supernet.slicing_file.unlink()
    with pytest.raises(LedgerError, match="has 2 studies"):
        read_fold_ledger(supernet.search)
