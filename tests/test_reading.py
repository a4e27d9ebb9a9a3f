"""Only regular files are read."""

import os
import socket

import pytest

from simjax._reading import check_regular_file, readable_formats


def test_files_and_links_to_them_are_regular_and_everything_else_has_a_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        check_regular_file(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to pipe").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")  # the path of a socket has at most 107 bytes
    for path, reason in {
        tmp_path / "pipe": "pipe",
        tmp_path / "link to pipe": "pipe",
        tmp_path / "socket": "socket",
        "/dev/zero": "device",
        tmp_path: "folder",
        tmp_path / "none": "No such file",
        tmp_path / "loop": "symbolic links",
        tmp_path / ("x" * 300): "name too long",
        tmp_path / "null\0": "null character",
    }.items():
        with pytest.raises(OSError) as caught:  # noqa: PT011 (the reason is compared)
            check_regular_file(path)
        assert reason in str(caught.value.strerror)
        assert str(tmp_path) not in str(caught.value.strerror)


def test_formats_whose_readers_start_programs_are_not_readable():
    assert {"PNG", "JPEG", "TIFF", "WEBP"} < set(readable_formats())
    assert not {"EPS", "WMF"} & set(readable_formats())
