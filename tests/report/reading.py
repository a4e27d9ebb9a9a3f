"""A parser of HTML pages that checks that tags are balanced, and collects tags and text."""

import html.parser
import re
from pathlib import Path

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Reader(html.parser.HTMLParser):
    """Collect tags with their attributes and the visible text; unbalanced tags are an error."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"closed and never opened: {tag}"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read_html(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def assert_self_contained(reader: Reader, links: str = "#") -> None:
    """Assert that a page loads nothing and has its own script only; links begin with `links`."""
    scripts = reader.named("script")
    assert [script for script in scripts if script.get("type") != "application/json"] == [{}]
    for tag, attributes in reader.tags:
        assert tag not in {"iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#", links)), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)


def table_row(markdown: str, first: str) -> list[str]:
    """Return the cells of the first row of a Markdown table that begins with a word."""
    line = next(line for line in markdown.split("\n") if line.startswith(f"| {first} |"))
    return re.split(r"(?<!\\) \| ", line.strip("| "))
