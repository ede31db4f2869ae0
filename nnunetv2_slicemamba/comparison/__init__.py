"""Comparison of the searched slicing with controls, and of the supernet's ranking with the retrained Dice."""
