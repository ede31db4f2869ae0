"""`python -m nnunetv2_slicemamba.search ...`: short for `slicemamba search ...`."""

import sys

from nnunetv2_slicemamba.cli import main

if __name__ == "__main__":
    main(["search", *sys.argv[1:]])
