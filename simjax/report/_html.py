"""A page as one HTML file that needs nothing else: figures inside, no script, no request, light and dark.

A chart is drawn once, on white. In the dark its lightness is turned around and its hue turned back, which makes white
exactly the page's dark ground; photographs are left as they are.
"""

import base64
import io

from simjax.report._escape import html as escape
from simjax.report._page import Block, Cell, Code, Folded, Page, Picture, Table, Text

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
@media (max-width: 40rem) { th, td { padding: .3rem .4rem; } table { font-size: .85rem; } }
"""
# The policy makes the browser keep the promise: whatever slipped through, nothing runs and nothing is fetched.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def to_html(page: Page) -> str:
    """The page as one self-contained HTML file."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(page.title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{escape(page.title)}</h1>",
            f'<p class="lead">{escape(page.lead)}</p>',
            *(
                "\n".join([f"<h2>{escape(s.title)}</h2>", "<section>", *map(_block, s.blocks), "</section>"])
                for s in page.sections
            ),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Table():
            return _table(block)
        case Picture():
            return _figure(block)
        case Code(text):
            return _preformatted(text)
        case Folded(summary, text):
            return f"<details><summary>{escape(summary)}</summary>\n{_preformatted(text)}\n</details>"


def _preformatted(text: str) -> str:
    """A box that scrolls, and can be reached by keyboard to do so."""
    lines = "\n".join(map(escape, text.split("\n")))
    return f'<pre tabindex="0"><code>{lines}</code></pre>'


def _figure(picture: Picture) -> str:
    from PIL import Image

    # WebP takes a third of the room: without loss for charts, with little for photographs.
    with Image.open(io.BytesIO(picture.png)) as image, io.BytesIO() as file:
        image.save(file, format="webp", lossless=not picture.photo, quality=85, method=4)
        data, (width, height) = base64.b64encode(file.getvalue()).decode("ascii"), image.size
    kind, size = "photo" if picture.photo else "chart", "wide" if picture.wide else "half"
    return (
        f'<figure class="{size}"><div class="scroll">'
        f'<img class="{kind}" width="{width}" height="{height}" alt="{escape(picture.alt)}" '
        f'src="data:image/webp;base64,{data}"></div>\n<figcaption>{escape(picture.caption)}</figcaption></figure>'
    )


def _table(table: Table) -> str:
    classes = [' class="r"' if side == "r" else "" for side in table.align]
    head = (f'<th scope="col"{c}>{escape(text)}</th>' for c, text in zip(classes, table.columns, strict=True))
    lines = ['<div class="scroll"><table>', f"<thead><tr>{''.join(head)}</tr></thead>", "<tbody>"]
    for first, *rest in table.rows:
        cells = (f"<td{c}>{_cell(cell)}</td>" for c, cell in zip(classes[1:], rest, strict=True))
        lines.append(f'<tr><th scope="row">{_cell(first)}</th>{"".join(cells)}</tr>')
    return "\n".join([*lines, "</tbody>", "</table></div>"])


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell) and cell.best:
        return f'<strong>{escape(cell.text)} <span title="best of the column">★</span></strong>'
    return escape(cell.text if isinstance(cell, Cell) else cell)
