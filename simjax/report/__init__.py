"""From saved runs to tables, figures, Markdown and HTML."""

from simjax.report._compare import compare
from simjax.report._summary import summary_lines
from simjax.report._write import write

__all__ = [
    "compare",
    "summary_lines",
    "write",
]
