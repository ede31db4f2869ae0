"""Names of the checkpoints that nnU-Net's trainers write into a fold's folder."""

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
BEST = "checkpoint_best.pth"
UNFINISHED = (LATEST, BEST)  # of a training that has not ended
ALL = (FINAL, *UNFINISHED)
