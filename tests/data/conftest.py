"""Fixtures that make small data sets: original files, prepared TFDS data sets, and folders of images."""

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simjax.data import _originals


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Use an empty cache folder instead of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "png")
    return file.getvalue()


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


class OriginalFiles:
    """A folder of original files, and their images and labels."""

    def __init__(self, folder: Path, images: dict[str, np.ndarray], labels: dict[str, np.ndarray]):
        self.folder, self.images, self.labels = folder, images, labels


@pytest.fixture
def mnist_files(tmp_path, random, monkeypatch) -> OriginalFiles:
    """Make the four files of MNIST with 30 and 10 images; two are compressed."""
    monkeypatch.setattr(_originals, "IDX_SHA256", {})
    folder = tmp_path / "published"
    folder.mkdir()
    images = {"train": random.integers(0, 256, (30, 28, 28), np.uint8)}
    images["test"] = random.integers(0, 256, (10, 28, 28), np.uint8)
    labels = {split: np.arange(len(pixels), dtype=np.uint8) % 10 for split, pixels in images.items()}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[split])))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels[split]))
    return OriginalFiles(folder, {split: pixels[..., None] for split, pixels in images.items()}, labels)


@pytest.fixture
def tfds_set(tmp_path) -> Callable[..., Path]:
    """Return a function that prepares a data set in tmp_path / "tfds" and returns this directory."""

    def make(name: str, splits: dict[str, list[dict]], features: Callable[[Any], dict], config: str = "") -> Path:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import registered

        set_name, examples, root = name, splits, tmp_path / "tfds"
        with registered.skip_registration():

            class Synthetic(tfds.core.GeneratorBasedBuilder):
                name = set_name
                VERSION = tfds.core.Version("1.0.0")
                BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []  # noqa: RUF012

                def _info(self):
                    return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features(tfds.features)))

                def _split_generators(self, dl_manager):
                    return {split: self._generate_examples(split) for split in examples}

                def _generate_examples(self, split):
                    yield from enumerate(examples[split])

                def _log_download_bytes(self):
                    pass

                def _log_download_done(self):
                    pass

        tfds.disable_progress_bar()
        Synthetic(data_dir=root).download_and_prepare(
            file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
        return root

    return make


@pytest.fixture
def image_folder(tmp_path) -> Callable[..., Path]:
    """Return a function that makes a folder from {"class/file.png": pixels}."""

    def make(files: dict[str, np.ndarray], name: str = "photos") -> Path:
        root = tmp_path / name
        for path, pixels in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(target)
        return root

    return make
