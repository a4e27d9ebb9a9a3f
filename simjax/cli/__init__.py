"""The command line."""

from simjax.cli._main import main

__all__ = [
    "main",
]
