from simjax.report._render import escape_html, escape_markdown, printable
from simjax.report._style import class_labels, shorten


def test_text_is_escaped_and_made_printable():
    assert printable("a\n  b") == "a   b"
    assert printable("cat\udcff\u202e") == "cat��"
    assert escape_html('<b title="x">') == "&lt;b title=&quot;x&quot;&gt;"
    assert escape_markdown("a|b <i> my_class") == "a\\|b &lt;i&gt; my\\_class"


def test_long_names_are_shortened_and_names_that_the_font_lacks_are_numbered():
    assert shorten("golden retriever", 8) == "golden …"
    assert class_labels(["cat", "猫", "a very long name of a class"]) == ["cat", "#1", "a very long nam…"]
