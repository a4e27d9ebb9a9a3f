"""Files and folders are replaced whole, also if the process is killed or renaming fails."""

import subprocess
import sys
import time

import pytest

from simjax import _files
from simjax._files import replace_folder

REPLACE_FOREVER = """
import sys
from pathlib import Path
from simjax._files import replace_folder
folder = Path(sys.argv[1])
print("ready", flush=True)
while True:
    new = folder.with_name(".new")
    new.mkdir()
    for name in "ab":
        (new / name).write_text("new")
    replace_folder(new, folder)
"""


def folder_with(path, content):
    path.mkdir()
    (path / "a").write_text(content)
    return path


def test_a_folder_replaces_another_or_none(tmp_path):
    out = tmp_path / "out"
    for content in ("first", "second"):
        replace_folder(folder_with(tmp_path / "new", content), out)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert (out / "a").read_text() == content


def test_without_an_exchange_two_renames_replace_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    replace_folder(folder_with(tmp_path / "new", "new"), folder_with(tmp_path / "out", "old"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "new"


def test_a_folder_that_cannot_be_replaced_is_unchanged(tmp_path, monkeypatch):
    out = folder_with(tmp_path / "out", "old")
    for exchange in (_files._exchange, lambda a, b: False):
        monkeypatch.setattr(_files, "_exchange", exchange)
        with pytest.raises(OSError, match="No such file"):
            replace_folder(tmp_path / "missing", out)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert (out / "a").read_text() == "old"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="folders are exchanged on Linux only")
def test_a_killed_process_leaves_a_whole_folder(tmp_path):
    for attempt in range(10):
        out = tmp_path / str(attempt) / "out"
        out.parent.mkdir()
        folder_with(out, "old")
        (out / "b").write_text("old")
        command = [sys.executable, "-c", REPLACE_FOREVER, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 * attempt)
            process.kill()
        assert {path.read_text() for path in out.iterdir()} in ({"old"}, {"new"})
        assert {path.name for path in out.iterdir()} == {"a", "b"}
