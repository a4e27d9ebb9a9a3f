import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import _originals
from simjax.data._originals import read_originals
from tests.data.conftest import idx


def test_idx_files_compressed_or_not(mnist_files):
    found = read_originals("mnist", mnist_files.folder, {})
    for split in ("train", "test"):
        assert np.array_equal(found.images[split], mnist_files.images[split])
        assert np.array_equal(found.labels[split]["label"], mnist_files.labels[split])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes(9000), mtime=0)[:-20], "truncated or corrupt"),
        ("train-images-idx3-ubyte.gz", b"no gzip at all", "truncated or corrupt"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(10, np.uint8))[:-1], "truncated"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros((10, 1), np.uint8)), "not an IDX file of 1 axes"),
        ("t10k-labels-idx1-ubyte", b"", "truncated"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(9, np.uint8)), "10 images but 9 labels"),
    ],
)
def test_a_damaged_idx_file_is_an_error(mnist_files, file, content, message):
    (mnist_files.folder / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_originals("mnist", mnist_files.folder, {})
    assert file in str(caught.value) or "10 images" in message


def test_the_uncompressed_content_must_be_the_published_one(mnist_files, monkeypatch):
    file = mnist_files.folder / "train-labels-idx1-ubyte"
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(_originals, "IDX_SHA256", {("mnist", file.name): checksum})
    # Compressing it again changes the file but not the content.
    file.with_suffix(".gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    read_originals("mnist", mnist_files.folder, {})
    other = idx(np.full(30, 3, np.uint8))
    file.with_suffix(".gz").write_bytes(gzip.compress(other))
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\.gz: its content is not the published one"):
        read_originals("mnist", mnist_files.folder, {})


def test_a_missing_file_is_an_error(mnist_files):
    (mnist_files.folder / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"expected t10k-images-idx3-ubyte\.gz or t10k-images-idx3-ubyte in it"):
        read_originals("mnist", mnist_files.folder, {})


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar_files(request, tmp_path, random, monkeypatch):
    """A CIFAR folder with 4 records in a file, its images and its labels."""
    name = request.param
    layout = _originals.CIFAR[name]
    layout = layout._replace(records={split: 4 * len(files) for split, files in layout.files.items()})
    monkeypatch.setitem(_originals.CIFAR, name, layout)
    folder = tmp_path / layout.folder
    folder.mkdir()
    for kind, file in layout.names.items():
        (folder / file).write_text("\n".join(f"{kind}{i}" for i in range(10)) + "\n\n")
    images, labels = {}, {}
    for split, files in layout.files.items():
        count = 4 * len(files)
        images[split] = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
        labels[split] = {kind: random.integers(0, 10, count, np.uint8) for kind in layout.names}
        planes = images[split].transpose(0, 3, 1, 2).reshape(count, 3072)  # red, green, blue
        records = np.concatenate([*(values[:, None] for values in labels[split].values()), planes], axis=1)
        for i, file in enumerate(files):
            (folder / file).write_bytes(records[4 * i : 4 * i + 4].tobytes())
    return name, folder, images, labels


def packed(folder) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(folder, folder.name)
    return file.getvalue()


def test_cifar_folder_and_archive(cifar_files, tmp_path):
    name, folder, images, labels = cifar_files
    archive = tmp_path / "elsewhere" / "archive.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(packed(folder))
    checksum = {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest()}
    for source in (folder, folder.parent, archive, archive.parent):
        found = read_originals(name, source, checksum)
        for split in ("train", "test"):
            assert np.array_equal(found.images[split], images[split])
            for kind, values in labels[split].items():
                assert np.array_equal(found.labels[split][kind], values)
                assert found.names[kind] == [f"{kind}{i}" for i in range(10)]


def test_damaged_cifar_files_are_errors(cifar_files, tmp_path):
    name, folder, _, _ = cifar_files
    archive = tmp_path / "elsewhere" / "archive.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(packed(folder)[:-1])
    with pytest.raises(InputError, match=r"archive\.tar\.gz: not the published archive"):
        read_originals(name, archive.parent, {archive.name: "0" * 64})
    with pytest.raises(InputError, match="expected other.tar.gz or the folder"):
        read_originals(name, archive.parent, {"other.tar.gz": "0" * 64})
    file = folder / _originals.CIFAR[name].files["test"][0]
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{file.name} truncated"):
        read_originals(name, folder, {})
    file.write_bytes(b"\xff" + content[1:])
    with pytest.raises(InputError, match=f"{file.name} corrupt: .* 255 has no name"):
        read_originals(name, folder, {})
    file.write_bytes(content)
    (folder / _originals.CIFAR[name].names["label"]).unlink()
    with pytest.raises(InputError, match="expected .*txt in it"):
        read_originals(name, folder, {})
