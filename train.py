"""`python train.py ...` is the same as `simjax train ...`."""

import sys

from simjax.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
