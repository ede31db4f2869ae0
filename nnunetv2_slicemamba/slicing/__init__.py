"""Slicings: candidates, the file of a fold's slicing and its place, the holdout file, and published results."""
