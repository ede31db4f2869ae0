"""Runs nnU-Net's and our console scripts one after the other, up to the first that fails: `pipeline.py ARGVS`.

They are the installed scripts with three things changed for speed: they and their helper processes start as forks of a
process that has imported what they need, instead of importing it anew; trainings have two iterations; intensity
statistics are of 10,000 voxels and not of 100 million.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
import traceback
from typing import Any

from tests.end_to_end.zygote import fork_instead_of_spawn
from tests.quick_nnunet import sample_fewer_voxels


def shorten_trainings() -> None:
    """Ours by their settings; nnU-Net's, which have none, after their construction."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunetv2_slicemamba.trainers import TRAINERS

    for trainer in TRAINERS.values():
        trainer.iterations_per_epoch, trainer.validation_iterations = 2, 1
    construct = nnUNetTrainer.__init__

    @functools.wraps(construct)
    def shortened(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1

    nnUNetTrainer.__init__ = shortened  # type: ignore[method-assign]


def run(argv: list[str]) -> int:
    """Exit code of a console script in a process of its own."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    fork_instead_of_spawn()
    sys.argv, code = argv, 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    import nnunetv2.inference.predict_from_raw_data
    import nnunetv2.run.run_training  # noqa: F401

    shorten_trainings()
    sample_fewer_voxels()
    for argv in json.loads(sys.argv[1]):
        print("$", *argv, flush=True)
        code = run(argv)
        if code:
            sys.exit(f"{argv[0]} exited with {code}")


if __name__ == "__main__":
    main()
