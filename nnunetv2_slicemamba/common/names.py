"""Names that commands default to; imports nothing, so that the command line starts quickly."""

DEFAULT_PLANS = "nnUNetSliceMambaPlans"
DEFAULT_SUPERNET_TRAINER = "SliceMambaSupernetTrainer"
DEFAULT_TRAINER = "SliceMambaTrainer"
