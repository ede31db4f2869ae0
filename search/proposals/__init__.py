"""Proposals: the architectures that a search evaluates next."""
