"""Sets that TensorFlow Datasets has prepared, read without TensorFlow.

The records are read in large slices and undecoded, the images decoded by Pillow in threads, and the arrays cached:
60,000 images of MNIST take a few seconds the first time and milliseconds afterwards.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError
from simjax.data._cache import CACHE_GIGABYTES, Decoded, cached
from simjax.data._dataset import Dataset, concatenate, select, stratified_split
from simjax.data._decode import ReadOptions, UnreadableImageError, common_format, decode_images
from simjax.data._download import Progress

SLICE = 5_000  # records read at once


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Where prepared sets lie: the given directory, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return Path(given).expanduser().resolve()


def find_prepared(name: str, root: Path) -> Path | None:
    """The folder of the newest prepared version of a set, `name` or `name/config`, or None."""
    folder = root / name
    if (folder / "dataset_info.json").is_file():
        return folder  # the name has the version in it
    versions = [path.parent for path in folder.glob("*/dataset_info.json") if _version(path.parent)]
    return max(versions, key=_version, default=None)


def prepared_names(root: Path) -> list[str]:
    """The sets, `name` or `name/config`, that are prepared in a directory."""
    infos = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    return sorted({path.parent.parent.relative_to(root).as_posix() for path in infos if _version(path.parent)})


def _version(folder: Path) -> tuple[int, ...]:
    """(3, 0, 1) for a folder called 3.0.1; () for another name."""
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def read_prepared(
    folder: Path,
    split: str,
    options: ReadOptions,
    cache_gigabytes: float = CACHE_GIGABYTES,
    progress: Progress | None = None,
) -> Dataset:
    """Read a prepared image set with the features `image` and `label`.

    A set without a test split is tested on its validation split; one that has neither is split by class, 75 to 25,
    with a fixed seed.

    Args:
        folder: of a prepared version.
        split: "train", "test" or "all" (both, one after the other).
        options: How images are read. A size that the set declares is used if none is given, and so are channels.
        cache_gigabytes: see `cached`.
        progress: Called with one line if images are resized.

    Returns:
        The data set, in the order of the records.

    Raises:
        InputError: if it is stored in a format that needs TensorFlow, has no such features, lacks a train split, or
            is damaged.
    """
    info = _description(folder / "dataset_info.json")
    if info.get("fileFormat") != "array_record":
        raise InputError(
            f"{folder}: stored as {info.get('fileFormat', 'tfrecord')}, which needs TensorFlow to read; expected"
            " array_record (prepare it again in another directory with `python -m simjax data prepare NAME`)"
        )
    splits = [entry["name"] for entry in info["splits"]]
    if "train" not in splits:
        raise InputError(f"{folder}: has no split 'train', only {', '.join(splits) or 'none'}")
    test = next((name for name in ("test", "validation") if name in splits), None)
    declared_size, declared_channels = _declared_format(folder)
    options = options._replace(
        image_size=options.image_size or declared_size, channels=options.channels or declared_channels
    )

    def read(name: str, options: ReadOptions) -> Dataset:
        key = "-".join(str(option) for option in (name, *options[:4]))
        found = cached(folder, key, lambda: _read_split(folder, name, options), cache_gigabytes)
        if found.resizing and progress is not None:
            progress(f"{folder.parent.name}: {found.resizing}", 1, 1)
        return found.dataset

    if split == "test" and test is not None and options.image_size is not None and options.channels is not None:
        return read(test, options)
    train = read("train", options)
    if test is None:
        kept, held_out = stratified_split(train.labels)
        return select(train, {"train": kept, "test": held_out, "all": np.concatenate([kept, held_out])}[split])
    if split == "train":
        return train
    height, width, channels = train.images.shape[1:]  # what training images were brought to, test images are too
    tested = read(test, options._replace(image_size=(height, width), channels=channels))
    return tested if split == "test" else concatenate([train, tested])


def _description(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); prepare the set again") from error


def _declared_format(folder: Path) -> tuple[tuple[int, int] | None, int | None]:
    """The size and the channels that every image has, as far as the set's description says so.

    Read from the description itself, which is a thousand times faster than importing TFDS for it.
    """
    features = _description(folder / "features.json").get("featuresDict", {}).get("features", {})
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
    # An unknown extent is negative; transparency is no channel of its own here.
    return (height, width) if min(height, width) > 0 else None, {1: 1, 3: 3, 4: 3}.get(channels)


def _read_split(folder: Path, split: str, options: ReadOptions) -> Decoded:
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)
        encoded = isinstance(builder.info.features["image"], tfds.features.Image)
        decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
        source = builder.as_data_source(split=split, decoders=decoders)
        records: list[dict[str, Any]] = []
        for start in range(0, len(source), SLICE):
            records += source.__getitems__(range(start, min(start + SLICE, len(source))))
    # The readers' own errors: absl's, protobuf's, Python's.
    except Exception as error:
        raise InputError(f"{folder}: split {split!r} cannot be read ({error}); prepare the set again") from error
    labels = np.array([record["label"] for record in records], np.int32)
    if len(labels) == 0 or labels.min() < 0:
        raise InputError(f"{folder}: split {split!r} is empty or has images without a label")
    pictures = [record["image"] for record in records]
    try:
        wanted, resizing = common_format(pictures, options)
        images = decode_images(pictures, wanted, f"{folder.parent.name}, split {split!r}")
    except UnreadableImageError as error:
        raise InputError(f"{folder}: image {error.index} of split {split!r} cannot be read ({error})") from error
    return Decoded(Dataset(images, labels, tuple(builder.info.features["label"].names)), resizing or "")
