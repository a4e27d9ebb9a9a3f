"""Pages with rows of thumbnails: files that cannot be read are pages without a picture, not errors."""

import os
import struct

import pytest
from PIL import Image

from simjax.report import ImageRow, Thumbnail, file_size, write_image_rows


@pytest.mark.parametrize("kind", ["pipe", "eps", "dds"])
def test_a_file_that_cannot_be_read_has_no_picture_and_no_size_and_the_others_have_both(tmp_path, kind):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    if kind == "pipe":
        os.mkfifo(bad)
    elif kind == "eps":  # Pillow would start Ghostscript
        bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    else:  # Pillow raises NotImplementedError
        Image.new("RGB", (8, 8)).save(bad, "dds")
        content = bad.read_bytes()
        bad.write_bytes(content[:76] + struct.pack("<II", 32, 4) + b"????" + content[88:])
    images = [Thumbnail(bad, ["bad"]), Thumbnail(tmp_path / "good.png", ["good"])]
    write_image_rows(tmp_path / "page.html", "rows", "lead", [ImageRow("row", images)])
    page = (tmp_path / "page.html").read_text()
    assert page.count("no picture") == 1
    assert page.count("data:image/png") == 1
    assert file_size(bad) is None
    assert file_size(tmp_path / "good.png") == f"8 x 8 pixels, {(tmp_path / 'good.png').stat().st_size} bytes"


def test_a_page_of_many_rows_has_no_list_of_links_to_them(tmp_path):
    rows = [ImageRow(f"row {i}", [Thumbnail(None, [str(i)])]) for i in range(5)]
    write_image_rows(tmp_path / "page.html", "rows", "lead", rows)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<h2") == 5
    assert "<nav" not in page
