"""Default names of plans and trainers; nothing is imported, so that the command line starts quickly."""

DEFAULT_PLANS = "nnUNetSliceMambaPlans"
DEFAULT_SUPERNET_TRAINER = "SliceMambaSupernetTrainer"
DEFAULT_TRAINER = "SliceMambaTrainer"
