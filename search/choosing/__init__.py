"""Choosing a slicing without or after a search: by hand, by consensus, or from the Pareto front."""
