"""Pipeline of a configuration's folds: supernet, search, final training and validation."""
