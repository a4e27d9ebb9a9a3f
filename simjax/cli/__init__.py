"""The command line, and training with a report as the command line does it."""

from simjax.cli._main import main
from simjax.cli._train import train_and_report

__all__ = [
    "main",
    "train_and_report",
]
