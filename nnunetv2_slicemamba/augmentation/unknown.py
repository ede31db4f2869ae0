"""The error that says what of a policy has no twin on the GPU."""


class UnknownTransformError(ValueError):
    """A transform, or a parameter's value, that the batched pipeline does not know; the message names it."""
