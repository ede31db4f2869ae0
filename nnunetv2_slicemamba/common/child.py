"""Start of a command in a process that ends with its parent.

`python -m nnunetv2_slicemamba.common.child PARENT MODULE FUNCTION NAME ...`: PARENT is the parent's process number;
FUNCTION of MODULE is called with NAME and all that follows as sys.argv.
"""

from __future__ import annotations

import importlib
import signal
import sys

from nnunetv2_slicemamba.common.stopping import end_with_parent, interruptible
from nnunetv2_slicemamba.common.verbosity import show_warnings_as_lines

PACKAGE = "nnunetv2_slicemamba"


def main() -> None:
    """Runs the command that the arguments name."""
    parent, module, function, *sys.argv = sys.argv[1:]
    end_with_parent(int(parent))
    show_warnings_as_lines()
    if hasattr(signal, "SIGUSR2"):
        # a batch system sends it to all processes of a job before the end of its time; our parent answers it
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if not module.startswith(f"{PACKAGE}."):
        # nnU-Net unpickles checkpoints, whose code must not run in a command that we start
        from nnunetv2_slicemamba.common.checkpoints import load_safely_from_now_on

        load_safely_from_now_on()
    with interruptible():
        sys.exit(getattr(importlib.import_module(module), function)())


if __name__ == "__main__":
    main()
