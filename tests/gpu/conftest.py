"""Makes the conformance suite of tests/ops and the short trainings of tests/trainers importable from here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
sys.path.insert(0, str(Path(__file__).parents[1] / "trainers"))
