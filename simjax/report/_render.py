"""Pages as HTML and as Markdown.

The HTML file is self-contained: figures are embedded, no script runs, and nothing is loaded from the network. Charts
are drawn on white; on a dark page, CSS inverts their colours and then rotates the hue by 180 degrees, so that only the
lightness changes. Photographs are not inverted.

All text is escaped here. Class names are folder names, so they may contain markup, control characters, lone surrogates
and characters that reverse the direction of writing.
"""

import base64
import html
import io
import re

from simjax.report._page import Block, Cell, Code, Page, Picture, Table, Text

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1d1f21; --soft: #5c6166; --line: #d9dcdf; --tint: #f4f5f6;
  --best: #00694d; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #121212; --ink: #e6e6e6; --soft: #a3a8ad; --line: #36393c; --tint: #1d1f21; --best: #4fd1a5; }
  img.chart { filter: invert(.93) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 66rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; padding-top: .8rem; border-top: 1px solid var(--line); }
.lead { color: var(--soft); margin: 0; }
section { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
section > * { flex: 1 1 100%; min-width: 0; margin: 0; }
section > .half { flex: 1 1 20rem; max-width: 30rem; }
.scroll { overflow-x: auto; }
img { display: block; width: 100%; height: auto; }
.wide img { max-width: 48rem; min-width: 32rem; }
figcaption { color: var(--soft); font-size: .86rem; line-height: 1.45; margin-top: .4rem; max-width: 46rem; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--ground); }
.r { text-align: right; font-variant-numeric: tabular-nums; }
td.r { white-space: nowrap; }
td strong { color: var(--best); }
pre { background: var(--tint); padding: .8rem 1rem; border-radius: .4rem; overflow-x: auto; font-size: .84rem;
  line-height: 1.4; margin: 0; }
details summary { cursor: pointer; color: var(--soft); }
details pre { margin-top: .5rem; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem .8rem; }
.row figure { margin: 0; overflow-wrap: anywhere; }
.row img, .missing { width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--tint); }
.row .query img, .row .query .missing { outline: 2px solid var(--best); }
.row figcaption > * { display: block; }
.missing { display: flex; align-items: center; justify-content: center; color: var(--soft); font-size: .8rem; }
@media (max-width: 40rem) { th, td { padding: .3rem .4rem; } table { font-size: .85rem; } }
"""
# The browser enforces that no script runs and that no file is fetched, even if an escape were missing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{sections}
</main>
</body>
</html>
"""


def printable(text: str) -> str:
    """Return one line of printable characters; other characters become a space or the replacement character."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


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
    sections = (
        "\n".join([f"<h2>{escape_html(title)}</h2>", "<section>", *map(_html_block, blocks), "</section>"])
        for title, blocks in page.sections
    )
    return page_html(page.title, page.lead, "\n".join(sections))


def page_html(title: str, lead: str, sections: str) -> str:
    """Return an HTML file with a title, a summary, and sections in HTML."""
    return _PAGE.format(
        policy=_POLICY, style=_STYLE, title=escape_html(title), lead=escape_html(lead), sections=sections
    )


def _html_block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape_html(text)}</p>"
        case Table():
            return _html_table(block)
        case Picture():
            return _html_figure(block)
        case Code(text, summary):
            lines = "\n".join(map(escape_html, text.split("\n")))
            code = f'<pre tabindex="0"><code>{lines}</code></pre>'  # tabindex: the keyboard can reach and scroll it
            return f"<details><summary>{escape_html(summary)}</summary>\n{code}\n</details>" if summary else code


def _html_figure(picture: Picture) -> str:
    """Return a figure with the embedded image and its caption; `_STYLE` defines the classes."""
    from PIL import Image  # only for pages with figures

    # WebP, lossless for charts and lossy for photographs, takes a third of the space of PNG.
    with Image.open(io.BytesIO(picture.png)) as image, io.BytesIO() as buffer:
        image.save(buffer, format="webp", lossless=not picture.is_photo, quality=85, method=4)
        data, (width, height) = base64.b64encode(buffer.getvalue()).decode("ascii"), image.size
    kind = "photo" if picture.is_photo else "chart"
    layout = "wide" if picture.is_photo or picture.is_wide else "half"
    return (
        f'<figure class="{layout}"><div class="scroll">'
        f'<img class="{kind}" width="{width}" height="{height}" alt="{escape_html(picture.alt)}" '
        f'src="data:image/webp;base64,{data}"></div>\n'
        f"<figcaption>{escape_html(picture.caption)}</figcaption></figure>"
    )


def _html_table(table: Table) -> str:
    classes = [' class="r"' if side == "r" else "" for side in table.align]
    head = (f'<th scope="col"{c}>{escape_html(text)}</th>' for c, text in zip(classes, table.columns, strict=True))
    lines = ['<div class="scroll"><table>', f"<thead><tr>{''.join(head)}</tr></thead>", "<tbody>"]
    for first, *rest in table.rows:
        cells = (f"<td{c}>{_html_cell(cell)}</td>" for c, cell in zip(classes[1:], rest, strict=True))
        lines.append(f'<tr><th scope="row">{_html_cell(first)}</th>{"".join(cells)}</tr>')
    return "\n".join([*lines, "</tbody>", "</table></div>"])


def _html_cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell) and cell.best:
        return f'<strong>{escape_html(cell.text)} <span title="best of the column">★</span></strong>'
    return escape_html(cell.text if isinstance(cell, Cell) else cell)


def to_markdown(page: Page) -> str:
    """Return the page as GitHub-flavoured Markdown, with figures in figures/NAME.png."""
    parts = [f"# {escape_markdown(page.title)}", escape_markdown(page.lead)]
    for title, blocks in page.sections:
        parts += [f"## {escape_markdown(title)}", *map(_markdown_block, blocks)]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Text(text):
            return escape_markdown(text)
        case Table():
            return _markdown_table(block)
        case Picture():
            alt, caption = escape_markdown(block.alt), escape_markdown(block.caption)
            return f"![{alt}](figures/{block.name}.png)\n\n*{caption}*"
        case Code(text, summary):
            # The fence is longer than any run of backticks in the text.
            fence = "`" * max([3, *(1 + len(run) for run in re.findall("`+", text))])
            code = "\n".join([fence, *map(printable, text.split("\n")), fence])
            opened = f"<details>\n<summary>{escape_markdown(summary)}</summary>\n\n{code}\n\n</details>"
            return opened if summary else code


def _markdown_table(table: Table) -> str:
    rule = ["---" if side == "l" else "---:" for side in table.align]
    rows = [[escape_markdown(text) for text in table.columns], rule]
    rows += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell) and cell.best:
        return f"**{escape_markdown(cell.text)}** ★"
    return escape_markdown(cell.text if isinstance(cell, Cell) else cell)
