"""Prepare an official data set from its original files, without TensorFlow.

A subclass of the official TFDS builder is given the parsed images as PNG bytes, since it is TFDS's own parsing and
encoding that go through TensorFlow. Name, version, features, keys and so the order of the records stay the official
ones, and plain `tfds.data_source` reads the result anywhere. All work is done in a folder beside the final one that is
renamed at the end: a run that is killed leaves no half-written set.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError, check_choice
from simjax.data._download import Progress, download, host, unreachable
from simjax.data._originals import OFFICIAL, Originals, read_originals
from simjax.data._prepared import data_root, find_prepared

WORK = ".simjax-preparing-"
ABANDONED_SECONDS = 3600.0  # a work folder that nobody wrote to for so long belongs to a run that was killed


def prepare(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Prepare an official data set for TFDS, from files at hand or by download.

    Args:
        name: mnist, fashion_mnist, cifar10 or cifar100.
        data_dir: where prepared sets lie; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        source: the folder with the original files (four IDX files, compressed or not; the CIFAR archive or its
            unpacked folder); None downloads them.
        progress: is called with what is being done, how much of it is done and how much there is of it.

    Returns:
        The folder of the prepared version. If it was there before, nothing is done.

    Raises:
        InputError: if a file is missing, damaged or not the published one, the download fails, or the directory
            cannot be written.
    """
    check_choice("dataset", name, OFFICIAL)
    progress = progress or (lambda what, done, total: None)
    root = data_root(data_dir)
    found = find_prepared(name, root)
    if found is not None:
        progress(f"{name} is already prepared in {found}", 1, 1)
        return found
    given = None if source is None else Path(source).expanduser()
    if given is not None and not given.exists():
        raise InputError(f"source: {source} does not exist")
    published = _published(name)
    reason = unreachable(next(iter(published))) if given is None else None
    if reason is not None:
        raise missing(name, root, f"its host {host(next(iter(published)))} cannot be reached ({reason})")
    with _work_folder(root, name) as work:
        if given is None:
            for url, (file_name, size, sha256) in published.items():
                download(url, work / file_name, size, sha256, progress)
        checksums = {file_name: sha256 for file_name, _, sha256 in published.values()}
        return _write(name, read_originals(name, given or work, checksums), root, work, progress)


def missing(name: str, root: Path, why: str) -> InputError:
    """The error for an official set that is not there, with the ways out."""
    return InputError(
        f"{name} is not prepared in {root}, and {why}. Three ways out: `python -m simjax data prepare {name} --from"
        f" FOLDER` makes it from the original files; --data-dir or $TFDS_DATA_DIR names a directory where it is"
        f" prepared; the datasets digits (embedded) and folder:PATH (your own images) need no download"
    )


def _published(name: str) -> dict[str, tuple[str, int, str]]:
    """The file name, size and SHA-256 behind each URL of an official set, as TFDS records them."""
    urls = _official(name).url_infos
    return {url: (info.filename or url.rsplit("/", 1)[-1], info.size, info.checksum) for url, info in urls.items()}


def _official(name: str) -> Any:
    from tensorflow_datasets import image_classification as official

    return {
        "mnist": official.MNIST,
        "fashion_mnist": official.FashionMNIST,
        "cifar10": official.Cifar10,
        "cifar100": official.Cifar100,
    }[name]


@contextlib.contextmanager
def _work_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder beside the prepared sets that is gone afterwards, as are those of runs that were killed."""
    prefix = f"{WORK}{name}-"
    try:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    except OSError as error:
        raise InputError(f"data_dir: {root} cannot be written ({error.strerror}); choose another --data-dir") from error
    for other in root.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # its owner may be at work in it
            written = max(path.stat().st_mtime for path in (other, *other.rglob("*")))
            if other != work and time.time() - written > ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(name: str, originals: Originals, root: Path, work: Path, progress: Progress) -> Path:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    builder = _builder(name, originals, work, progress)
    bars_shown = tqdm_utils._active
    tfds.display_progress_bar(False)
    try:
        builder.download_and_prepare(
            file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except OSError as error:
        raise InputError(f"data_dir: {root} cannot be written ({error.strerror or error})") from error
    finally:
        tfds.display_progress_bar(bars_shown)
    made = Path(builder.data_dir)
    final = root / made.relative_to(work)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(final)
    except OSError as error:
        # Another process was faster: what it made is the same. Anything else in the way is not ours to remove.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or find_prepared(name, root) is None:
            raise InputError(f"{final}: in the way of the prepared set; remove it and prepare again") from error
    total = sum(map(len, originals.images.values()))
    progress(f"preparing {name}", total, total)
    return final


def _builder(name: str, originals: Originals, data_dir: Path, progress: Progress) -> Any:
    """A builder of the official set that takes its images from `originals`."""
    from tensorflow_datasets.core import registered

    official = _official(name)
    total = sum(map(len, originals.images.values()))

    with registered.skip_registration():

        class Builder(official):
            name = official.name

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                for kind, names in originals.names.items():
                    self.info.features[kind].names = names
                return {split: self._generate_examples(split) for split in originals.images}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
                images, labels = originals.images[split], originals.labels[split]
                before = 0 if split == "train" else len(originals.images["train"])
                for index, image in enumerate(images):
                    example: dict[str, Any] = {kind: int(values[index]) for kind, values in labels.items()}
                    if "id" in self.info.features:
                        example["id"] = f"{split}_{index:05d}"
                    if index % 1000 == 0:
                        progress(f"preparing {name}", before + index, total)
                    yield index, {"image": _png(image), **example}

            def _log_download_bytes(self) -> None:
                """Print nothing, as the official one does."""

            def _log_download_done(self) -> None:
                """Print nothing, as the official one does."""

    return Builder(data_dir=data_dir)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "png")
    return file.getvalue()
