"""Pages as HTML and as Markdown.

The HTML file is self-contained: the style, the script, the charts and the pictures are in it, and nothing is loaded
from the network. The content security policy names the script by its hash, so that the browser runs no other one, even
if an escape were missing.

All text is escaped here. Class names are folder names, so they may contain markup, control characters, lone surrogates
and characters that reverse the direction of writing.
"""

import base64
import csv
import dataclasses
import functools
import hashlib
import html
import io
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

from simjax.report._page import Block, Cell, Chart, Code, Matrix, Page, Photos, Row, Table, Text

if TYPE_CHECKING:
    from jinja2 import Template

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
    "form-action 'none'"
)
COLOURS = {
    "#ffffff": "ground",
    "#1d1f21": "ink",
    "#000000": "ink",  # defaults of Matplotlib
    "#5c6166": "soft",
    "#d9dcdf": "line",
    "#0072b2": "blue",
    "#d55e00": "vermillion",
    "#009e73": "green",
    "#cc79a7": "pink",
    "#e69f00": "orange",
    "#56b4e9": "sky",
    "#666666": "grey",
}
"""Colours of the charts, and the name of each in the style of the page, where it depends on the theme."""
NO_BREAK = "\N{NO-BREAK SPACE}"


def printable(text: str) -> str:
    """Return one line of printable characters; other characters become a space or the replacement character."""
    return "".join(
        c if c.isprintable() or c == NO_BREAK else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def shorten(text: str, length: int) -> str:
    """Return printable text of at most `length` characters; the middle of a longer one becomes an ellipsis.

    Example:
        >>> shorten("class_with_a_long_name_0017", 12)
        'class_…_0017'
    """
    text = printable(text).strip()
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end]}…{text[-end:]}"


def escape_html(text: str) -> str:
    """Escape text for HTML, as content or in a quoted attribute."""
    return html.escape(printable(text))


def escape_markdown(text: str) -> str:
    r"""Escape text for Markdown, also inside a cell of a table.

    Example:
        >>> escape_markdown("a|b <i> my_class")
        'a\\|b &lt;i&gt; my\\_class'
    """
    return html.escape(re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", printable(text).strip()), quote=False)


def to_html(page: Page) -> str:
    """Return the page as one HTML file."""
    template, style, script = _template()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    named = {f"section-{i}": section for i, section in enumerate(page.sections, start=1) if section.blocks}
    from markupsafe import Markup

    return template.render(
        page=page,
        sections=list(named.items()),
        policy=Markup(_POLICY.format(digest=digest)),
        style=Markup(style),
        script=Markup(script),
    )


@functools.cache
def _template() -> tuple["Template", str, str]:
    """Return the template of pages, the style and the script."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    loader = PackageLoader("simjax.report")
    environment = Environment(loader=loader, autoescape=True, finalize=_finalize, keep_trailing_newline=True)
    environment.filters |= {
        "csv": _csv_address,
        "fields": dataclasses.asdict,
        "breakable": lambda text: Markup(escape_html(text).replace("/", "/<wbr>")),  # long paths
        "kind": lambda block: type(block).__name__,
        "lines": lambda text: Markup("\n".join(map(escape_html, text.split("\n")))),
        "svg": lambda chart: Markup(_themed_svg(chart)),
    }
    style, script = (loader.get_source(environment, name)[0] for name in ("page.css", "page.js"))
    return environment.get_template("page.html"), style, script


def _finalize(value: Any) -> Any:
    return printable(value) if type(value) is str else value  # a subclass of str is markup


def _themed_svg(chart: Chart) -> str:
    """Return the chart with the colours of the page and a description for screen readers."""
    svg = chart.svg
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    focus = ' tabindex="0"' if chart.points else ""
    return svg.replace("<svg ", f'<svg class="chart" role="img"{focus} aria-label="{escape_html(chart.alt)}" ', 1)


def _csv_address(chart: Chart) -> str:
    """Return the data of a chart as a CSV file in a data URI."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(chart.data)
    writer.writerows(zip(*chart.data.values(), strict=True))
    return f"data:text/csv;charset=utf-8,{urllib.parse.quote(file.getvalue(), errors='replace')}"


def to_markdown(page: Page) -> str:
    """Return the page as GitHub-flavoured Markdown, with charts in figures/NAME.svg; pictures become tables."""
    parts = [f"# {escape_markdown(page.title)}", escape_markdown(page.lead)]
    parts += [_markdown_cards(page)] if page.cards else []
    parts += map(_markdown_block, page.overview)
    for section in page.sections:
        parts += (
            [f"## {escape_markdown(section.title)}", *map(_markdown_block, section.blocks)] if section.blocks else []
        )
    return "\n\n".join(parts) + "\n"


def _markdown_cards(page: Page) -> str:
    rows: list[Row] = [[card.title, card.value, card.interval or "–", card.meaning] for card in page.cards]
    return _markdown_table(["Number", "Value", "95% interval", "Meaning"], rows, "lrrl")


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text):
            return escape_markdown(text)
        case Table():
            table = _markdown_table(block.columns, block.rows, block.align)
            return _markdown_details(block.summary, table) if block.summary else table
        case Matrix():
            rows: list[Row] = [[name, *texts] for name, texts in zip(block.rows, block.texts, strict=True)]
            columns = [f"{block.row_title} \\ {block.column_title}" if block.row_title else "class", *block.columns]
            table = _markdown_table(columns, rows, "l" + "r" * len(block.columns))
            return f"{table}\n\n*{escape_markdown(block.caption)}*"
        case Chart():
            alt, caption = escape_markdown(block.alt), escape_markdown(block.caption)
            return f"![{alt}](figures/{block.name}.svg)\n\n*{caption}*"
        case Photos():
            lines = [
                f"- {f'{escape_markdown(row.title)}: ' if row.title else ''}"
                + "; ".join(escape_markdown(photo.alt) for photo in row.photos)
                for row in block.rows
            ]
            return "\n".join(lines) + (f"\n\n*{escape_markdown(block.caption)}*" if block.caption else "")
        case Code(text, summary):
            # The fence is longer than any run of backticks in the text.
            fence = "`" * max([3, *(1 + len(run) for run in re.findall("`+", text))])
            code = "\n".join([fence, *map(printable, text.split("\n")), fence])
            return _markdown_details(summary, code) if summary else code


def _markdown_details(summary: str, content: str) -> str:
    return f"<details>\n<summary>{escape_markdown(summary)}</summary>\n\n{content}\n\n</details>"


def _markdown_table(columns: list[str], rows: list[Row], align: str) -> str:
    lines = [[escape_markdown(text) for text in columns], ["---" if side == "l" else "---:" for side in align]]
    lines += [[_markdown_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: str | Cell) -> str:
    text = escape_markdown(cell.text if isinstance(cell, Cell) else cell)
    if isinstance(cell, Cell) and cell.best:
        return f"**{text}** ★"
    return f"[{text}]({cell.link})" if isinstance(cell, Cell) and cell.link else text
