"""Makes the conformance suite of tests/ops importable from here."""
