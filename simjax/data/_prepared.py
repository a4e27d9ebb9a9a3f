"""Read data sets that TensorFlow Datasets has prepared, without TensorFlow, and cache their decoded images.

Records are read undecoded in large slices, and images are decoded by Pillow in threads. Reading the 60,000 images of
MNIST takes a few seconds, and milliseconds from the cache. A cache file contains the arrays of one split; its name
has a hash of the data set's files, the split and the options. It is written to a temporary file and renamed. The least
recently used files are deleted if all files together exceed `cache_gigabytes`. If the cache cannot be read or written,
the images are decoded without it.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simjax._files import absolute_path, user_cache
from simjax.core import InputError
from simjax.data._dataset import Dataset, concatenate, select, stratified_split
from simjax.data._decode import CACHE_GIGABYTES, ReadOptions, UnreadableImageError, common_format, decode_images

DecodedSplit = tuple[Dataset, str]
"""A split with decoded images, and a description of how they were resized, or ""."""

RECORDS_PER_READ = 5_000
CACHE_PREFIX = "simjax-"


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the directory of prepared data sets: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return absolute_path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def find_prepared(name: str, root: Path) -> Path | None:
    """Return the folder of the newest prepared version of a data set, `name` or `name/config`, or None."""
    folder = root / name
    if not os.path.isdir(folder):  # unlike `folder.is_dir()`, it takes a name of any length
        return None
    if (folder / "dataset_info.json").is_file():
        return folder  # `name` includes the version
    versions = [path.parent for path in folder.glob("*/dataset_info.json") if _version(path.parent)]
    return max(versions, key=_version, default=None)


def prepared_names(root: Path) -> list[str]:
    """Return the names, `name` or `name/config`, of the prepared data sets in a directory."""
    infos = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    return sorted({path.parent.parent.relative_to(root).as_posix() for path in infos if _version(path.parent)})


def _version(folder: Path) -> tuple[int, ...]:
    """Return (3, 0, 1) for a folder with the name 3.0.1, and () for other names."""
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def read_prepared(folder: Path, split: str, options: ReadOptions) -> Dataset:
    """Read a prepared data set with the features `image` and `label`; see `load` for the arguments.

    A data set without a test split is tested on its validation split. A data set that has neither is split by class, 75
    to 25, with a fixed seed. The default size and channels are those that the data set declares.
    """
    info = _read_json(folder / "dataset_info.json")
    if info.get("fileFormat") != "array_record":
        raise InputError(
            f"{folder}: stored as {info.get('fileFormat', 'tfrecord')}, which needs TensorFlow to read; expected"
            " array_record (prepare it again in another directory with `python -m simjax data prepare NAME`)"
        )
    splits = [entry["name"] for entry in info["splits"]]
    if "train" not in splits:
        raise InputError(f"{folder}: has no split 'train', only {', '.join(splits) or 'none'}")
    test_name = next((name for name in ("test", "validation") if name in splits), None)
    declared_size, declared_channels = _declared_format(folder)
    options = options._replace(
        image_size=options.image_size or declared_size, channels=options.channels or declared_channels
    )

    def read(name: str, options: ReadOptions) -> Dataset:
        key = "-".join(str(option) for option in (name, *options[:4]))  # the options from image_size to input_range
        found, resizing = cached(folder, key, lambda: _read_split(folder, name, options), options.cache_gigabytes)
        if resizing and options.progress is not None:
            options.progress(f"{folder.parent.name}: {resizing}", 1, 1)
        return found

    if split == "test" and test_name is not None and options.image_size is not None and options.channels is not None:
        return read(test_name, options)
    train = read("train", options)
    if test_name is None:
        train_rows, test_rows = stratified_split(train.labels)
        rows = {"train": train_rows, "test": test_rows, "all": np.concatenate([train_rows, test_rows])}[split]
        return select(train, rows)
    if split == "train":
        return train
    height, width, channels = train.images.shape[1:]  # test images get the format of the training images
    test = read(test_name, options._replace(image_size=(height, width), channels=channels))
    return test if split == "test" else concatenate([train, test])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); prepare the data set again") from error


def _declared_format(folder: Path) -> tuple[tuple[int, int] | None, int | None]:
    """Return the size and the channels that the description of a data set declares, each None if undeclared."""
    # Read as JSON, which is a thousand times faster than importing TFDS.
    features = _read_json(folder / "features.json").get("featuresDict", {}).get("features", {})
    if not {"image", "label"} <= features.keys():
        raise InputError(
            f"{folder}: expected the features 'image' and 'label', got {', '.join(sorted(features)) or 'none'}"
        )
    kind = features["image"].get("image") or features["image"].get("tensor") or {}
    shape = [int(extent) for extent in kind.get("shape", {}).get("dimensions", [])]
    if len(shape) not in (2, 3) or kind.get("dtype") not in ("uint8", "uint16"):
        raise InputError(f"{folder}: feature 'image': expected pixels [h, w, c] of type uint8, got {features['image']}")
    if "classLabel" not in features["label"]:
        raise InputError(f"{folder}: feature 'label': expected one class label, got {features['label']}")
    height, width, channels = (*shape, 1)[:3]
    # An unknown extent is negative. Transparency is not a channel of the result.
    return (height, width) if min(height, width) > 0 else None, {1: 1, 3: 3, 4: 3}.get(channels)


def _read_split(folder: Path, split: str, options: ReadOptions) -> DecodedSplit:
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)
        is_encoded = isinstance(builder.info.features["image"], tfds.features.Image)
        decoders = {"image": tfds.decode.SkipDecoding()} if is_encoded else None
        source = builder.as_data_source(split=split, decoders=decoders)
        records: list[dict[str, Any]] = []
        for start in range(0, len(source), RECORDS_PER_READ):
            records += source.__getitems__(range(start, min(start + RECORDS_PER_READ, len(source))))
    except Exception as error:  # the readers raise errors of absl, protobuf and Python
        raise InputError(f"{folder}: split {split!r} cannot be read ({error}); prepare the data set again") from error
    labels = np.array([record["label"] for record in records], np.int32)
    if len(labels) == 0 or labels.min() < 0:
        raise InputError(f"{folder}: split {split!r} is empty or has images without a label")
    sources = [record["image"] for record in records]
    try:
        wanted, resizing = common_format(sources, options)
        images = decode_images(sources, wanted, f"{folder.parent.name}, split {split!r}")
    except UnreadableImageError as error:
        raise InputError(f"{folder}: image {error.index} of split {split!r} cannot be read ({error})") from error
    return Dataset(images, labels, tuple(builder.info.features["label"].names)), resizing or ""


def cached(
    folder: Path, key: str, decode: Callable[[], DecodedSplit], cache_gigabytes: float = CACHE_GIGABYTES
) -> DecodedSplit:
    """Return the result of `decode`, from the cache if a result was stored for the same key and files in `folder`.

    The key is the split and the options that change the images. The warnings of `decode` are stored and given again.
    """
    cache = user_cache()
    if cache is None or cache_gigabytes <= 0:
        return decode()
    path = cache / "images" / f"{CACHE_PREFIX}{_hash_files(folder, key)}.npy"
    if (found := _read_cache(path)) is None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decoded = decode()
        found = decoded, [str(warning.message) for warning in caught if warning.category is UserWarning]
        with contextlib.suppress(OSError):
            _write_cache(path, *found, int(cache_gigabytes * 10**9))
    decoded, messages = found
    for message in messages:
        warnings.warn(message, stacklevel=2)
    return decoded


def _hash_files(folder: Path, key: str) -> str:
    """Return a hash of a key and of the files of a data set, 96 bits in hexadecimal.

    It depends on the name of the data set (the parent folder), the contents of its .json and .txt files, and the names,
    sizes and modification times of its other files; not on hidden files and cache files of earlier versions of simjax.
    """
    digest = hashlib.sha256(f"{folder.parent.name} {key}".encode())
    for path in sorted(folder.iterdir()):
        if path.name.startswith((CACHE_PREFIX, ".")) or not path.is_file():
            continue
        digest.update(path.name.encode())
        if path.suffix in (".json", ".txt"):
            digest.update(path.read_bytes())
        else:
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _read_cache(path: Path) -> tuple[DecodedSplit, list[str]] | None:
    try:
        with path.open("rb") as file:
            images, labels, names, resizing, messages = (np.load(file) for _ in range(5))
    except (OSError, ValueError, EOFError):  # missing, unreadable, truncated by a full disk, or another kind of file
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the time of the last use decides which files are deleted
    return (Dataset(images, labels, tuple(map(str, names))), str(resizing)), list(map(str, messages))


def _write_cache(path: Path, decoded: DecodedSplit, messages: list[str], limit: int) -> None:
    """Write a cache file, and delete the least recently used files if all together exceed `limit` bytes."""
    dataset, resizing = decoded
    if dataset.images.nbytes + dataset.labels.nbytes > limit:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.stat().st_mode & 0o222:
        raise PermissionError(path.parent)  # a read-only folder, in which the superuser could write nevertheless
    handle, temporary = tempfile.mkstemp(prefix=f".{CACHE_PREFIX}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            strings = (np.array(s, dtype=np.str_) for s in (dataset.class_names, resizing, messages))
            for array in (dataset.images, dataset.labels, *strings):
                np.save(file, array)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    total = 0
    for file in sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True):
        total += file.stat().st_size
        if total > limit and file != path:
            file.unlink()
