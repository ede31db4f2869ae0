"""Does the search help? The searched slicing beside controls, and the supernet's ranking beside the retrained Dice."""
