"""The page about the format reads a gallery without simjax."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "gallery-format.md"


def read_gallery(folder):
    """The function that the page defines."""
    names: dict = {}
    for example in doctest.DocTestParser().get_examples(PAGE.read_text(encoding="utf-8")):
        exec(compile(example.source, str(PAGE), "single"), names)
    return names["read_gallery"](folder)


def test_the_function_of_the_page_reads_all_items(gallery, rows):
    ids = gallery.add(rows, ["a", None] * 6 + ["é"], [{"n": i} for i in range(13)], paths=["x"] * 13)
    gallery.remove(ids[2])
    found = read_gallery(Path(gallery.address))
    assert [item[:4] for item in found][:2] == [(1, "a", "x", {"n": 0}), (2, None, "x", {"n": 1})]
    assert found[-1][1] == "é"
    np.testing.assert_array_equal([item[4] for item in found], np.delete(rows, 2, axis=0))


def test_the_function_needs_sqlite_and_numpy_only(gallery, rows):
    gallery.add(rows)
    source = "".join(e.source for e in doctest.DocTestParser().get_examples(PAGE.read_text(encoding="utf-8")))
    code = f"{source}\nimport sys; print(len(read_gallery({str(Path(gallery.address))!r})), 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["13", "False"]
