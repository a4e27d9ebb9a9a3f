"""A page as Markdown, with its figures as files in figures/."""

import re

from simjax.report._escape import markdown as escape
from simjax.report._escape import plain
from simjax.report._page import Block, Cell, Code, Folded, Page, Picture, Table, Text


def to_markdown(page: Page) -> str:
    """The page as Markdown in GitHub's flavour; a figure is `figures/NAME.png`."""
    parts = [f"# {escape(page.title)}", escape(page.lead)]
    for section in page.sections:
        parts += [f"## {escape(section.title)}", *map(_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return escape(text)
        case Table():
            return _table(block)
        case Picture():
            return f"![{escape(block.alt)}](figures/{block.name}.png)\n\n*{escape(block.caption)}*"
        case Code(text):
            return _fenced(text)
        case Folded(summary, text):
            return f"<details>\n<summary>{escape(summary)}</summary>\n\n{_fenced(text)}\n\n</details>"


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = map(plain, text.split("\n"))
    return "\n".join([fence, *lines, fence])


def _table(table: Table) -> str:
    rule = ["---" if side == "l" else "---:" for side in table.align]
    rows = [[escape(column) for column in table.columns], rule, *([_cell(c) for c in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell) and cell.best:
        return f"**{escape(cell.text)}** ★"
    return escape(cell.text if isinstance(cell, Cell) else cell)
