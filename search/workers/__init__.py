"""Workers: what evaluates the architectures of a generation, in one process or several."""
