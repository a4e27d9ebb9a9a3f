"""From saved runs to tables, figures, Markdown and HTML."""

from simjax.report._compare import compare as compare
from simjax.report._summary import summary_lines as summary_lines
from simjax.report._write import write as write
