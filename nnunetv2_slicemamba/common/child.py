"""Start of a command in a process that ends with its parent.

`python -m nnunetv2_slicemamba.common.child PARENT MODULE FUNCTION NAME ...`: PARENT is the parent's process number;
FUNCTION of MODULE is called with NAME and all that follows as sys.argv.
"""

from __future__ import annotations

import importlib
import signal
import sys
import time
from typing import Any

from nnunetv2_slicemamba.common.stopping import SAME_REQUEST_SECONDS, end_with_parent


def interrupt_once() -> None:
    """Has Ctrl-C raise KeyboardInterrupt once: a terminal sends it, and so does the parent, which was asked too."""
    latest = -float("inf")

    def interrupt(number: int, frame: Any) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest >= SAME_REQUEST_SECONDS:
            latest = now
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def main() -> None:
    """Runs the command that the arguments name."""
    parent, module, function, *sys.argv = sys.argv[1:]
    end_with_parent(int(parent))
    interrupt_once()
    sys.exit(getattr(importlib.import_module(module), function)())


if __name__ == "__main__":
    main()
