"""Tables, figures, Markdown and HTML from saved runs."""

from simjax.report._boundaries import draw_regions
from simjax.report._compare import compare
from simjax.report._image_rows import ImageRow, Thumbnail, file_size, write_image_rows
from simjax.report._study import write_study
from simjax.report._write import SECTIONS, summary_lines, write

__all__ = [
    "SECTIONS",
    "ImageRow",
    "Thumbnail",
    "compare",
    "draw_regions",
    "file_size",
    "summary_lines",
    "write",
    "write_image_rows",
    "write_study",
]
