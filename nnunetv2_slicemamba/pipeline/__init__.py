"""Pipeline of a configuration's folds: supernet, search, training and validation."""
