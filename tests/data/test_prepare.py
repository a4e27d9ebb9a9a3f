import hashlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import _prepare, load, prepare
from simjax.data._originals import Originals
from simjax.data._prepare import connection_error, download


def test_a_prepared_data_set_is_read_by_plain_tfds(mnist_files, tmp_path):
    import tensorflow_datasets as tfds

    lines = []
    folder = prepare("mnist", tmp_path / "data", mnist_files.folder, lambda *line: lines.append(line))
    assert folder == tmp_path / "data" / "mnist" / "3.0.1"
    assert lines == [("preparing mnist", 0, 40), ("preparing mnist", 30, 40), ("preparing mnist", 40, 40)]
    assert os.listdir(tmp_path / "data") == ["mnist"]
    source: Any = tfds.data_source("mnist", data_dir=tmp_path / "data", download=False)
    assert set(source) == {"train", "test"}
    found = load("mnist", "train", tmp_path / "data")
    by_tfds = list(source["train"])
    assert np.array_equal(found.images, np.stack([record["image"] for record in by_tfds]))
    assert found.labels.tolist() == [record["label"] for record in by_tfds]
    label_of = {
        image.tobytes(): label
        for image, label in zip(mnist_files.images["train"], mnist_files.labels["train"], strict=True)
    }
    assert [label_of[image.tobytes()] for image in found.images] == found.labels.tolist()
    assert found.class_names == tuple("0123456789")


def test_a_prepared_data_set_is_not_changed(mnist_files, tmp_path):
    folder = prepare("mnist", tmp_path / "data", mnist_files.folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    lines = []
    assert prepare("mnist", tmp_path / "data", tmp_path / "anything", lambda *line: lines.append(line)) == folder
    assert lines == [(f"mnist is already prepared in {folder}", 1, 1)]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_cifar_has_its_official_ids_and_names(tmp_path, random):
    import tensorflow_datasets as tfds

    images = {"train": random.integers(0, 256, (12, 32, 32, 3), np.uint8)}
    images["test"] = images["train"][:4]
    labels = {
        split: {"coarse_label": np.arange(len(x)) % 20, "label": np.arange(len(x)) % 100} for split, x in images.items()
    }
    names = {"coarse_label": [f"group{i}" for i in range(20)], "label": [f"kind{i}" for i in range(100)]}
    work, root = tmp_path / "work", tmp_path / "data"
    _prepare._write("cifar100", Originals(images, labels, names), root, work, lambda *step: None)
    source: Any = tfds.data_source("cifar100", data_dir=root, download=False)
    for record in source["train"]:
        index = int(record["id"].decode().removeprefix("train_"))
        assert np.array_equal(record["image"], images["train"][index])
        assert (record["label"], record["coarse_label"]) == (index % 100, index % 20)
    assert load("cifar100", "test", root).class_names == tuple(names["label"])  # the fine labels


def test_a_missing_network_is_an_immediate_error_with_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    published = {"http://127.0.0.1:9/train-images-idx3-ubyte.gz": ("train-images-idx3-ubyte.gz", 1, "0")}
    monkeypatch.setattr(_prepare, "_published", lambda name: published)
    start = time.monotonic()
    with pytest.raises(InputError, match="127.0.0.1 cannot be reached") as caught:
        load("mnist", "train", tmp_path / "data")
    assert time.monotonic() - start < 10
    for remedy in ("data prepare mnist --from", "--data-dir or $TFDS_DATA_DIR", "digits", "folder:PATH"):
        assert remedy in str(caught.value)
    assert not (tmp_path / "data").exists()
    with pytest.raises(InputError, match="downloading is turned off"):
        load("mnist", "train", tmp_path / "data", download=False)


def test_load_downloads_and_prepares(mnist_files, tmp_path, monkeypatch):
    files = list(mnist_files.folder.iterdir())
    published = {
        path.as_uri(): (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
    }
    monkeypatch.setattr(_prepare, "_published", lambda name: published)
    monkeypatch.setattr(_prepare, "connection_error", lambda url: None)
    found = load("mnist", "all", tmp_path / "data")
    assert sorted(image.tobytes() for image in found.images) == sorted(
        image.tobytes() for images in mnist_files.images.values() for image in images
    )
    assert os.listdir(tmp_path / "data") == ["mnist"]


def test_a_failure_leaves_no_files(mnist_files, tmp_path):
    (mnist_files.folder / "t10k-labels-idx1-ubyte").write_bytes(b"broken")
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        prepare("mnist", tmp_path / "data", mnist_files.folder)
    assert os.listdir(tmp_path / "data") == []


def test_wrong_arguments_are_errors(tmp_path, mnist_files):
    with pytest.raises(InputError, match="did you mean mnist"):
        prepare("mnits", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        prepare("mnist", tmp_path, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        prepare("mnist", tmp_path / "file", mnist_files.folder)
    (tmp_path / "data/mnist/3.0.1").mkdir(parents=True)
    (tmp_path / "data/mnist/3.0.1/precious").touch()
    with pytest.raises(InputError, match="in the way of the prepared data set"):
        prepare("mnist", tmp_path / "data", mnist_files.folder)


CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """A local host of data: answers with a file or the first half of it."""

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


def test_a_host_that_answers_has_no_connection_error(url):
    assert connection_error(f"{url}/file") is None
    assert "404" in str(connection_error(f"{url}/gone"))


def test_a_refused_connection_is_an_error(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "refused" in str(connection_error(f"http://127.0.0.1:{port}/file"))


def test_a_host_that_does_not_answer_is_an_error_after_the_timeout(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_prepare, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert connection_error(f"http://127.0.0.1:{silent.getsockname()[1]}/file") is not None
        assert time.monotonic() - start < 5


def test_a_download_is_complete_and_verified(url, tmp_path):
    lines = []
    checksum = hashlib.sha256(CONTENT).hexdigest()
    download(f"{url}/file", tmp_path / "file", len(CONTENT), checksum, lambda *line: lines.append(line))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert lines[-1] == ("downloading 127.0.0.1/file", len(CONTENT), len(CONTENT))
    assert len(lines) > 2


def test_a_truncated_or_different_download_is_an_error(url, tmp_path):
    checksum = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(InputError, match="not the published file|download failed"):
        download(f"{url}/half", tmp_path / "file", len(CONTENT), checksum, lambda *line: None)
    with pytest.raises(InputError, match="not the published file"):
        download(f"{url}/file", tmp_path / "file", len(CONTENT), "0" * 64, lambda *line: None)


KILLED = """
import os, signal, sys
from simjax.data import _originals, prepare
_originals.IDX_SHA256 = {}
prepare("mnist", sys.argv[1], sys.argv[2], lambda *step: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_partial_data_set(mnist_files, tmp_path):
    root = tmp_path / "data"
    done = subprocess.run([sys.executable, "-c", KILLED, root, mnist_files.folder], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = root.iterdir()
    assert left.name.startswith(_prepare.WORK_PREFIX)
    assert prepare("mnist", root, mnist_files.folder).is_dir()
    assert left.exists()  # another run may be using it
    an_old_time = time.time() - 2 * _prepare.ABANDONED_SECONDS
    for path in (left, *left.rglob("*")):
        os.utime(path, (an_old_time, an_old_time))
    with _prepare._work_folder(root, "mnist"):
        pass
    assert os.listdir(root) == ["mnist"]


NO_TENSORFLOW = """
import sys
import simjax.data
heavy = {"tensorflow", "tensorflow_datasets", "sklearn", "PIL", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from simjax.data import _originals
_originals.IDX_SHA256 = {}
simjax.data.prepare("mnist", sys.argv[1], sys.argv[2])
simjax.data.load("mnist", "train", sys.argv[1])
assert "tensorflow" not in sys.modules
"""


def test_tensorflow_is_not_imported_and_no_text_is_printed(mnist_files, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NO_TENSORFLOW, tmp_path / "data", mnist_files.folder], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_real_fashion_mnist(tmp_path):
    prepare("fashion_mnist", tmp_path, DEBIAN)
    train, test = load("fashion_mnist", "train", tmp_path), load("fashion_mnist", "test", tmp_path)
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    np.testing.assert_allclose(train.images.mean() / 255, 0.2860, atol=5e-5)
    assert train.class_names[0] == "T-shirt/top"
