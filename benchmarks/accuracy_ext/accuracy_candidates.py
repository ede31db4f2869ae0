"""What nnU-Net imports when nnUNet_extTrainer names this folder: the trainers that `accuracy.py` tries out.

The folder holds nothing else, since nnU-Net imports every module of it; `benchmarks` must be on the Python path.
"""

from accuracy_trainers import CANDIDATES

globals().update(CANDIDATES)
