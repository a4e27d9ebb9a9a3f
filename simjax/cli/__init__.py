"""The command line."""

from simjax.cli._main import main as main
