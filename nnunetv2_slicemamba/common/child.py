"""Start of a command in a process that ends with its parent.

`python -m nnunetv2_slicemamba.common.child PARENT MODULE FUNCTION NAME ...`: PARENT is the parent's process number;
FUNCTION of MODULE is called with NAME and all that follows as sys.argv.
"""

from __future__ import annotations

import importlib
import sys

from nnunetv2_slicemamba.common.stopping import end_with_parent, interruptible


def main() -> None:
    """Runs the command that the arguments name."""
    parent, module, function, *sys.argv = sys.argv[1:]
    end_with_parent(int(parent))
    with interruptible():
        sys.exit(getattr(importlib.import_module(module), function)())


if __name__ == "__main__":
    main()
