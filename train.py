"""`python train.py ...` is `simjax train ...`."""

import sys

from simjax.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
