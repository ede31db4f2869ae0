"""The slicing search: which thickness every block scans with, chosen per fold on validation Dice.

An evolutionary search over the paths of a supernet (Fan et al., "SliceMamba with Neural Architecture Search for Medical
Image Segmentation", IEEE JBHI 2025; single-path one-shot evolution after Guo et al., ECCV 2020). What is exported here
knows no network: whoever searches passes a function that evaluates an architecture.
"""

from nnunetv2_slicemamba.common.hashing import sha256_of_file, sha256_of_plans
from nnunetv2_slicemamba.search.choosing.choices import choose_slicing
from nnunetv2_slicemamba.search.choosing.consensus import Consensus, consensus
from nnunetv2_slicemamba.search.fingerprint import Fingerprint
from nnunetv2_slicemamba.search.fitness import FITNESS_DEFINITION, DiceScores, dice_per_case, mean_foreground_dice
from nnunetv2_slicemamba.search.ledger.ledger import Ledger, StudyRefusedError, open_ledger, read_ledger
from nnunetv2_slicemamba.search.ledger.storage import LedgerError, NoSearchError
from nnunetv2_slicemamba.search.loop import SearchFailedError, SearchResult, run_search
from nnunetv2_slicemamba.search.proposals.evolution import propose, propose_with_origins, select_parents
from nnunetv2_slicemamba.search.records import Evaluation, History, Proposal, Record, best_record, history_of
from nnunetv2_slicemamba.search.settings import SAMPLERS, SearchSettings
from nnunetv2_slicemamba.slicing.candidates import MAX_THICKNESS, Architecture, Slicing
from nnunetv2_slicemamba.slicing.choice import SlicingChoice
from nnunetv2_slicemamba.slicing.file import SlicingFile, SlicingFileError, read_slicing_file, write_slicing_file
from nnunetv2_slicemamba.slicing.find import (
    SLICING_FILE,
    SLICING_VARIABLE,
    STUDY_FILE,
    SeveralSlicingsError,
    SlicingNotFoundError,
    find_slicing_file,
    slicing_file_for_training,
    slicing_search_folder,
)
from nnunetv2_slicemamba.slicing.holdout_file import Holdout, HoldoutError, draw_holdout, read_holdout
from nnunetv2_slicemamba.slicing.measured_on import MeasuredOn

__all__ = [
    "FITNESS_DEFINITION",
    "MAX_THICKNESS",
    "SAMPLERS",
    "SLICING_FILE",
    "SLICING_VARIABLE",
    "STUDY_FILE",
    "Architecture",
    "Consensus",
    "DiceScores",
    "Evaluation",
    "Fingerprint",
    "History",
    "Holdout",
    "HoldoutError",
    "Ledger",
    "LedgerError",
    "MeasuredOn",
    "NoSearchError",
    "Proposal",
    "Record",
    "SearchFailedError",
    "SearchResult",
    "SearchSettings",
    "SeveralSlicingsError",
    "Slicing",
    "SlicingChoice",
    "SlicingFile",
    "SlicingFileError",
    "SlicingNotFoundError",
    "StudyRefusedError",
    "best_record",
    "choose_slicing",
    "consensus",
    "dice_per_case",
    "draw_holdout",
    "find_slicing_file",
    "history_of",
    "mean_foreground_dice",
    "open_ledger",
    "propose",
    "propose_with_origins",
    "read_holdout",
    "read_ledger",
    "read_slicing_file",
    "run_search",
    "select_parents",
    "sha256_of_file",
    "sha256_of_plans",
    "slicing_file_for_training",
    "slicing_search_folder",
    "write_slicing_file",
]
