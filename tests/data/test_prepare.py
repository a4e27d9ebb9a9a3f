import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import _prepare, load, prepare
from simjax.data._originals import Originals


def test_prepared_from_files_it_is_read_by_plain_tfds(mnist_files, tmp_path):
    import tensorflow_datasets as tfds

    steps = []
    folder = prepare("mnist", tmp_path / "data", mnist_files.folder, lambda *step: steps.append(step))
    assert folder == tmp_path / "data" / "mnist" / "3.0.1"
    assert steps == [("preparing mnist", 0, 40), ("preparing mnist", 30, 40), ("preparing mnist", 40, 40)]
    assert os.listdir(tmp_path / "data") == ["mnist"]
    source = tfds.data_source("mnist", data_dir=tmp_path / "data", download=False)
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


def test_a_set_that_is_there_is_left_alone(mnist_files, tmp_path):
    folder = prepare("mnist", tmp_path / "data", mnist_files.folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    steps = []
    assert prepare("mnist", tmp_path / "data", tmp_path / "anything", lambda *step: steps.append(step)) == folder
    assert steps == [(f"mnist is already prepared in {folder}", 1, 1)]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_cifar_keeps_its_ids_and_names(tmp_path, random):
    import tensorflow_datasets as tfds

    images = {"train": random.integers(0, 256, (12, 32, 32, 3), np.uint8)}
    images["test"] = images["train"][:4]
    labels = {
        split: {"coarse_label": np.arange(len(x)) % 20, "label": np.arange(len(x)) % 100} for split, x in images.items()
    }
    names = {"coarse_label": [f"group{i}" for i in range(20)], "label": [f"kind{i}" for i in range(100)]}
    work, root = tmp_path / "work", tmp_path / "data"
    _prepare._write("cifar100", Originals(images, labels, names), root, work, lambda *step: None)
    for record in tfds.data_source("cifar100", data_dir=root, download=False)["train"]:
        index = int(record["id"].decode().removeprefix("train_"))
        assert np.array_equal(record["image"], images["train"][index])
        assert (record["label"], record["coarse_label"]) == (index % 100, index % 20)
    assert load("cifar100", "test", root).class_names == tuple(names["label"])  # the fine labels


def test_no_network_is_said_at_once_with_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    published = {"http://127.0.0.1:9/train-images-idx3-ubyte.gz": ("train-images-idx3-ubyte.gz", 1, "0")}
    monkeypatch.setattr(_prepare, "_published", lambda name: published)
    start = time.monotonic()
    with pytest.raises(InputError, match="127.0.0.1 cannot be reached") as caught:
        load("mnist", "train", tmp_path / "data")
    assert time.monotonic() - start < 10
    for way in ("data prepare mnist --from", "--data-dir or $TFDS_DATA_DIR", "digits", "folder:PATH"):
        assert way in str(caught.value)
    assert not (tmp_path / "data").exists()
    with pytest.raises(InputError, match="downloading is turned off"):
        load("mnist", "train", tmp_path / "data", download=False)


def test_downloaded_prepared_and_loaded_in_one_go(mnist_files, tmp_path, monkeypatch):
    files = list(mnist_files.folder.iterdir())
    published = {
        path.as_uri(): (path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files
    }
    monkeypatch.setattr(_prepare, "_published", lambda name: published)
    monkeypatch.setattr(_prepare, "unreachable", lambda url: None)
    found = load("mnist", "all", tmp_path / "data")
    assert sorted(image.tobytes() for image in found.images) == sorted(
        image.tobytes() for images in mnist_files.images.values() for image in images
    )
    assert os.listdir(tmp_path / "data") == ["mnist"]


def test_a_failure_leaves_nothing_behind(mnist_files, tmp_path):
    (mnist_files.folder / "t10k-labels-idx1-ubyte").write_bytes(b"broken")
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        prepare("mnist", tmp_path / "data", mnist_files.folder)
    assert os.listdir(tmp_path / "data") == []


def test_arguments(tmp_path, mnist_files):
    with pytest.raises(InputError, match="did you mean mnist"):
        prepare("mnits", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        prepare("mnist", tmp_path, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        prepare("mnist", tmp_path / "file", mnist_files.folder)
    (tmp_path / "data/mnist/3.0.1").mkdir(parents=True)
    (tmp_path / "data/mnist/3.0.1/precious").touch()
    with pytest.raises(InputError, match="in the way of the prepared set"):
        prepare("mnist", tmp_path / "data", mnist_files.folder)


KILLED = """
import os, signal, sys
from simjax.data import _originals, prepare
_originals.IDX_SHA256 = {}
prepare("mnist", sys.argv[1], sys.argv[2], lambda *step: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_run_leaves_no_half_written_set(mnist_files, tmp_path):
    root = tmp_path / "data"
    done = subprocess.run([sys.executable, "-c", KILLED, root, mnist_files.folder], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = root.iterdir()
    assert left.name.startswith(_prepare.WORK)
    assert prepare("mnist", root, mnist_files.folder).is_dir()
    assert left.exists()  # it could still be someone's
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


def test_tensorflow_is_never_imported_and_nothing_is_printed(mnist_files, tmp_path):
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
