"""Slicings on disk: candidates, the file of a fold's slicing and where it lies, and the holdout file."""
