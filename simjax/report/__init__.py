"""Tables, figures, Markdown and HTML from saved runs."""

from simjax.report._compare import compare
from simjax.report._write import summary_lines, write

__all__ = [
    "compare",
    "summary_lines",
    "write",
]
