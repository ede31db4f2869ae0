"""Whole runs over the folds of a configuration: the steps of each fold and their order."""
