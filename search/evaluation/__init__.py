"""Evaluation: the fitness and the cost of a supernet's paths on a fold's cases."""
