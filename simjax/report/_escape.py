"""What a user's text becomes in HTML, in Markdown and in a figure.

Class names are folder names and may hold anything: markup, control characters, half of a surrogate pair, letters
that turn the direction of writing. Renderers escape every string they are given, so nothing else has to remember to.
"""

import html as _html
import re

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~$!])")


def plain(text: str) -> str:
    """One line of characters that can be printed; others become a space or the replacement character.

    Example:
        >>> plain("a\\n  b"), plain("cat\\udcff\\u202e")
        ('a   b', 'cat��')
    """
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


def html(text: str) -> str:
    """Text for HTML, as content or in a quoted attribute.

    Example:
        >>> html('<b title="x">')
        '&lt;b title=&quot;x&quot;&gt;'
    """
    return _html.escape(plain(text))


def markdown(text: str) -> str:
    r"""Text for Markdown, also inside a table's cell.

    Example:
        >>> markdown("a|b <i> my_class")
        'a\\|b &lt;i&gt; my\\_class'
    """
    return _html.escape(_MARKDOWN.sub(r"\\\1", plain(text).strip()), quote=False)


def short(text: str, length: int) -> str:
    """Text of at most that many characters, with an ellipsis where it was cut.

    Example:
        >>> short("golden retriever", 8)
        'golden …'
    """
    text = plain(text).strip()
    return text if len(text) <= length else text[: length - 1] + "…"
