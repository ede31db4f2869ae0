"""Fixtures of the GPU tests; the conformance suite and the short trainings come from tests.ops and tests.trainers."""
