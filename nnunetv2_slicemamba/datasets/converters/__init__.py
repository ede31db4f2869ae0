"""Converters of the datasets that `slicemamba convert` knows, one file each; the registry finds them here."""
