import hashlib
import http.server
import socket
import threading
import time

import pytest

from simjax.core import InputError
from simjax.data import _download
from simjax.data._download import download, unreachable

CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Answers on this machine what a data host would: a file, half of it, or nothing."""

    def do_HEAD(self):
        self.send_response(404 if self.path == "/gone" else 200)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT)

    def log_message(self, format, *args):  # noqa: A002
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_host_that_answers_is_reachable(url):
    assert unreachable(f"{url}/file") is None
    assert "404" in str(unreachable(f"{url}/gone"))


def test_no_host_is_found_out_at_once(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "refused" in str(unreachable(f"http://127.0.0.1:{port}/file"))


def test_a_host_that_keeps_silent_is_given_up(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_download, "REACH_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/file") is not None
        assert time.monotonic() - start < 5


def test_a_file_comes_whole_and_is_verified(url, tmp_path):
    seen = []
    checksum = hashlib.sha256(CONTENT).hexdigest()
    download(f"{url}/file", tmp_path / "file", len(CONTENT), checksum, lambda *step: seen.append(step))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert seen[-1] == ("downloading 127.0.0.1/file", len(CONTENT), len(CONTENT))
    assert len(seen) > 2


def test_half_a_file_or_another_one_is_refused(url, tmp_path):
    checksum = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(InputError, match="not the published file|download failed"):
        download(f"{url}/half", tmp_path / "file", len(CONTENT), checksum, lambda *step: None)
    with pytest.raises(InputError, match="not the published file"):
        download(f"{url}/file", tmp_path / "file", len(CONTENT), "0" * 64, lambda *step: None)
