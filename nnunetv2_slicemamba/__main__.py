"""`python -m nnunetv2_slicemamba`: the `slicemamba` command where console scripts are not installed."""

from nnunetv2_slicemamba.cli import main

if __name__ == "__main__":
    main()
