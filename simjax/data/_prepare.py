"""Prepare an official data set for TFDS from its original files, without TensorFlow.

A subclass of the official TFDS builder gets the parsed images as PNG bytes, because the parsing and encoding of TFDS
need TensorFlow. Name, version, features, keys and therefore the order of the records are the official ones, and plain
`tfds.data_source` reads the result anywhere. Everything is written to a temporary folder, which is renamed at the end,
so that a run that is killed leaves no partial data set.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from simjax.core import InputError, check_choice
from simjax.data._dataset import Progress
from simjax.data._originals import OFFICIAL, Originals, read_originals
from simjax.data._prepared import data_root, find_prepared

WORK_PREFIX = ".simjax-preparing-"
ABANDONED_SECONDS = 3600.0  # a work folder without a change for this time belongs to a run that was killed
CONNECT_SECONDS = 6.0
READ_SECONDS = 30.0
CHUNK_BYTES = 2**18
NETWORK_ERRORS = (OSError, http.client.HTTPException)


def prepare(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    source: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Prepare an official data set for TFDS from local files or by download.

    Args:
        name: mnist, fashion_mnist, cifar10 or cifar100.
        data_dir: Directory of prepared data sets. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        source: The folder with the original files (four IDX files, compressed or not; the CIFAR archive or its unpacked
            folder), whose checksums are verified. Default: the files are downloaded.
        progress: See `Progress`.

    Returns:
        The folder of the prepared version, which is not changed if it exists.
    """
    check_choice("dataset", name, OFFICIAL)
    progress = progress or (lambda what, done, total: None)
    root = data_root(data_dir)
    found = find_prepared(name, root)
    if found is not None:
        progress(f"{name} is already prepared in {found}", 1, 1)
        return found
    given = None if source is None else Path(os.path.expanduser(source))
    if given is not None and not os.path.exists(given):
        raise InputError(f"source: {source} does not exist")
    published = _published(name)
    if given is None:
        url = next(iter(published))
        reason = connection_error(url)
        if reason is not None:
            raise missing(name, root, f"its host {_host(url)} cannot be reached ({reason})")
    with _work_folder(root, name) as work:
        if given is None:
            for url, (file_name, size, sha256) in published.items():
                download(url, work / file_name, size, sha256, progress)
        checksums = {file_name: sha256 for file_name, _, sha256 in published.values()}
        return _write(name, read_originals(name, given or work, checksums), root, work, progress)


def missing(name: str, root: Path, reason: str) -> InputError:
    """Return the error for an official data set that is not prepared, with the possible remedies."""
    return InputError(
        f"{name} is not prepared in {root}, and {reason}. Three ways out: `python -m simjax data prepare {name} --from"
        f" FOLDER` makes it from the original files; --data-dir or $TFDS_DATA_DIR names a directory where it is"
        f" prepared; the datasets digits (embedded) and folder:PATH (your own images) need no download"
    )


def connection_error(url: str) -> str | None:
    """Return the reason why a URL cannot be reached, or None if its host answers within `CONNECT_SECONDS`."""
    reasons: list[str | None] = ["no answer"]

    def connect() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=CONNECT_SECONDS):
                reasons.append(None)
        except NETWORK_ERRORS as error:
            reasons.append(str(error).strip("<>"))

    # The request runs in a thread, because no timeout applies to the look-up of a host's name.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return reasons[-1]


def download(url: str, target: Path, size: int, sha256: str, progress: Progress) -> None:
    """Download a file of `size` bytes and verify its checksum."""
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=READ_SECONDS) as response, target.open("wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
                done += len(chunk)
                progress(f"downloading {_host(url)}/{target.name}", done, size)
    except NETWORK_ERRORS as error:
        raise InputError(f"{url}: the download failed ({error})") from error
    if digest.hexdigest() != sha256:
        raise InputError(f"{url}: the downloaded file is not the published file (SHA-256 differs)")


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or url


def _published(name: str) -> dict[str, tuple[str, int, str]]:
    """Return the file name, size and SHA-256 of each URL of an official data set, as TFDS records them."""
    urls = _official_builder(name).url_infos
    return {url: (info.filename or url.rsplit("/", 1)[-1], info.size, info.checksum) for url, info in urls.items()}


def _official_builder(name: str) -> Any:
    from tensorflow_datasets import image_classification as official

    names = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "Cifar10", "cifar100": "Cifar100"}
    return getattr(official, names[name])


@contextlib.contextmanager
def _work_folder(root: Path, name: str) -> Iterator[Path]:
    """Make a temporary folder beside the prepared data sets, and delete the temporary folders of killed runs."""
    prefix = f"{WORK_PREFIX}{name}-"
    try:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    except OSError as error:
        raise InputError(f"data_dir: {root} cannot be written ({error.strerror}); choose another --data-dir") from error
    for other in root.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another run may be changing it
            written = max(path.stat().st_mtime for path in (other, *other.rglob("*")))
            if other != work and time.time() - written > ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(name: str, originals: Originals, root: Path, work: Path, progress: Progress) -> Path:
    """Write a prepared data set to the work folder and move it to its place."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    builder = _builder(name, originals, work, progress)
    had_bars = tqdm_utils._active
    tfds.display_progress_bar(False)
    try:
        builder.download_and_prepare(
            file_format="array_record", download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except OSError as error:
        raise InputError(f"data_dir: {root} cannot be written ({error.strerror or error})") from error
    finally:
        tfds.display_progress_bar(had_bars)
    written = Path(builder.data_dir)
    final = root / written.relative_to(work)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        written.rename(final)
    except OSError as error:
        # Another process may have prepared the same data set meanwhile. Anything else is an error and is not deleted.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or find_prepared(name, root) is None:
            raise InputError(f"{final}: in the way of the prepared data set; remove it and prepare again") from error
    total = sum(map(len, originals.images.values()))
    progress(f"preparing {name}", total, total)
    return final


def _builder(name: str, originals: Originals, data_dir: Path, progress: Progress) -> Any:
    """Return a builder of the official data set that gets its images from `originals`."""
    from PIL import Image
    from tensorflow_datasets.core import registered

    official = _official_builder(name)
    total = sum(map(len, originals.images.values()))

    def encode(image: np.ndarray) -> bytes:
        file = BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "png")
        return file.getvalue()

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
                    yield index, {"image": encode(image), **example}

            def _log_download_bytes(self) -> None: ...  # the official methods print

            def _log_download_done(self) -> None: ...

    return Builder(data_dir=data_dir)
