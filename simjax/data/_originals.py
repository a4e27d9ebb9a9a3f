"""Parse the original files of the official data sets without TensorFlow.

MNIST and Fashion-MNIST are four IDX files: a big-endian header (two zero bytes, the type 8 for bytes, the number of
axes and their extents) and the values. Their checksums are those of the uncompressed content, because differently
compressed files are in use. CIFAR is a tar archive of records: one byte for each label, then 3 x 32 x 32 pixels.
"""

import gzip
import hashlib
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simjax.core import InputError

IDX_SHA256 = {
    ("mnist", "train-images-idx3-ubyte"): "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ("mnist", "train-labels-idx1-ubyte"): "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ("mnist", "t10k-images-idx3-ubyte"): "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ("mnist", "t10k-labels-idx1-ubyte"): "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ("fashion_mnist", "train-images-idx3-ubyte"): "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ("fashion_mnist", "train-labels-idx1-ubyte"): "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ("fashion_mnist", "t10k-images-idx3-ubyte"): "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ("fashion_mnist", "t10k-labels-idx1-ubyte"): "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class CifarLayout(NamedTuple):
    """The contents of the archive of a CIFAR data set."""

    folder: str  # folder of the files in the archive
    files: dict[str, tuple[str, ...]]  # files of each split
    names: dict[str, str]  # file of class names for each kind of label, in the order of the labels in a record
    records: dict[str, int] = {"train": 50_000, "test": 10_000}  # number of records of each split


CIFAR = {
    "cifar10": CifarLayout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        {"label": "batches.meta.txt"},
    ),
    "cifar100": CifarLayout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        {"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
    ),
}
OFFICIAL = ("mnist", "fashion_mnist", *CIFAR)


class Originals(NamedTuple):
    """The content of the original files of a data set."""

    images: dict[str, np.ndarray]  # images of each split, uint8 [n, h, w, c]
    labels: dict[str, dict[str, np.ndarray]]  # labels of each split and kind of label, uint8 [n]
    names: dict[str, list[str]]  # class names of each kind of label; empty if the files have no class names


def read_originals(name: str, source: Path, sha256: dict[str, str]) -> Originals:
    """Read and verify the original files of an official data set in the folder `source`, or a CIFAR archive.

    `sha256` has the published checksum of each archive, by the name of the archive.
    """
    return _read_cifar(CIFAR[name], source, sha256) if name in CIFAR else _read_mnist(name, source)


def _read_mnist(name: str, source: Path) -> Originals:
    images, labels = {}, {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images[split] = _read_idx(name, source, f"{prefix}-images-idx3-ubyte")[..., None]
        labels[split] = {"label": _read_idx(name, source, f"{prefix}-labels-idx1-ubyte")}
        if len(images[split]) != len(labels[split]["label"]):
            raise InputError(f"{source}: {len(images[split])} images but {len(labels[split]['label'])} labels")
    return Originals(images, labels, {})


def _read_idx(name: str, source: Path, file_name: str) -> np.ndarray:
    path = next((p for p in (source / f"{file_name}.gz", source / file_name) if p.is_file()), None)
    if path is None:
        raise InputError(f"{source}: expected {file_name}.gz or {file_name} in it")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: truncated or corrupt ({error})") from error
    expected = IDX_SHA256.get((name, file_name))
    if expected and hashlib.sha256(content).hexdigest() != expected:
        raise InputError(
            f"{path}: its content is not the published one (SHA-256 differs): damaged, or of another data set"
        )
    axes = int(file_name.split("idx")[1][0])
    header = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:header]) if len(content) >= header else ()
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) != header + np.prod(shape, dtype=np.int64):
        raise InputError(f"{path}: truncated, or not an IDX file of {axes} axes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_cifar(layout: CifarLayout, source: Path, sha256: dict[str, str]) -> Originals:
    folder = next((f for f in (source / layout.folder, source) if (f / layout.files["test"][0]).is_file()), None)
    if folder is not None:
        return _parse_cifar(layout, folder, lambda name: (folder / name).read_bytes())
    archive = next((p for p in (source, *(source / name for name in sha256)) if p.is_file()), None)
    if archive is None:
        raise InputError(f"{source}: expected {' or '.join(sha256)} or the folder {layout.folder} in it")
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() not in sha256.values():
            raise InputError(
                f"{archive}: not the published archive (SHA-256 differs): truncated or corrupt"
                f" (if the archive was repacked, unpack it and give the folder {layout.folder})"
            )
    with tarfile.open(archive) as tar:

        def member(name: str) -> bytes:
            content = tar.extractfile(f"{layout.folder}/{name}")
            return content.read() if content else b""  # a directory has no content

        return _parse_cifar(layout, archive, member)


def _parse_cifar(layout: CifarLayout, source: Path, content: Callable[[str], bytes]) -> Originals:
    def read(name: str) -> bytes:
        try:
            return content(name)
        except (OSError, KeyError) as error:
            raise InputError(f"{source}: expected {name} in it ({error})") from error

    names = {kind: read(file).decode().splitlines() for kind, file in layout.names.items()}
    names = {kind: [line.strip() for line in lines if line.strip()] for kind, lines in names.items()}
    size = len(names) + 3 * 32 * 32  # bytes of a record
    images, labels = {}, {}
    for split, files in layout.files.items():
        raw = np.frombuffer(b"".join(map(read, files)), np.uint8)
        if raw.size != layout.records[split] * size:
            raise InputError(
                f"{source}: {', '.join(files)} truncated: expected {layout.records[split]} records of {size} bytes"
            )
        records = raw.reshape(-1, size)
        labels[split] = {kind: records[:, i] for i, kind in enumerate(names)}
        images[split] = records[:, len(names) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # [n, 32, 32, 3]
        for kind, values in labels[split].items():
            if values.max() >= len(names[kind]):
                raise InputError(f"{source}: {', '.join(files)} corrupt: {kind} {values.max()} has no name")
    return Originals(images, labels, names)
