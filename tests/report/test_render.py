"""Tests of text and charts on pages."""

import pytest

from simjax.report._page import Cell, Chart, Page, Photo, PhotoRow, Photos, Section, Table
from simjax.report._render import escape_html, escape_markdown, printable, shorten, to_html, to_markdown


def test_text_is_escaped_and_made_printable():
    assert printable("a\n  b") == "a   b"
    assert printable("cat\udcff\u202e") == "cat��"
    assert escape_html('<b title="x">') == "&lt;b title=&quot;x&quot;&gt;"
    assert escape_markdown("a|b <i> my_class") == "a\\|b &lt;i&gt; my\\_class"


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("short", 5, "short"),
        ("class_with_a_long_name_0017", 12, "class_…_0017"),
        ("a\x00b\n", 3, "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_long_names_are_cut_in_the_middle(text, length, expected):
    assert shorten(text, length) == expected
    assert len(shorten(text, length)) <= length


def test_a_section_without_blocks_is_left_out(tmp_path):
    page = Page("title", "lead", [Section("empty", []), Section("full", [Table(["a"], [["b"]], "l")])])
    assert "empty" not in to_html(page) + to_markdown(page)
    assert "## full" in to_markdown(page)


def test_text_of_every_block_is_escaped():
    hostile = "<b>&\"'</b>"
    photo = Photo("data:image/png;base64,", [hostile], "wrong")
    blocks = [
        Table([hostile], [[Cell(hostile, link=hostile)], [Cell(hostile, best=True)]], "l", hostile),
        Photos([PhotoRow([photo], hostile)], hostile),
        Chart("name", "<svg ></svg>", hostile, hostile, {hostile: [hostile]}),
    ]
    page = to_html(Page(hostile, hostile, [Section(hostile, blocks)] * 3))
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_pictures_are_lists_of_their_texts_in_markdown():
    rows = [PhotoRow([Photo(None, ["a", "b"]), Photo(None, ["c"], "wrong")], "row")]
    assert "- row: a, b; c, wrong\n\n*caption*" in to_markdown(
        Page("t", "l", [Section("s", [Photos(rows, "caption")])])
    )
