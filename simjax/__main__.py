"""`python -m simjax` is the command line."""

from simjax.cli import main

main()
