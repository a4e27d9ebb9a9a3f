"""Images of a command: files, files that cannot be read, and the progress of encoding them."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from simjax.core import InputError

T = TypeVar("T")

MAX_NAMED = 3  # files that a message names


def image_files(words: Sequence[str]) -> list[Path]:
    """Return images and the images in folders; an InputError for a file of embeddings says where those are taken."""
    from simjax.encoder import find_images

    if saved := [word for word in words if word.lower().endswith((".npz", ".csv"))]:
        raise InputError(
            f"{saved[0]}: expected images; embeddings are added and searched from Python, `gallery.add(embeddings)`, "
            "see docs/galleries.md"
        )
    return find_images(words)


def one_image(path: str) -> Path:
    """Return the path of an image that exists; an InputError for a folder."""
    from simjax.encoder import find_images

    if os.path.isdir(path):
        raise InputError(f"{path}: expected an image, got a folder")
    return find_images(path)[0]


def encoding_progress() -> Any:
    """Return a display of the progress on stderr."""
    from simjax.train._progress import PreparationDisplay

    return PreparationDisplay(stderr=True)


def of_readable(
    function: Callable[[list[Path]], T], files: Sequence[Path], encoder: Any, *, skip_unreadable: bool
) -> tuple[list[Path], T]:
    """Return the files that can be read and the value of a function of these files.

    Args:
        function: Reads all files that it is given by the encoder.
        files: Image files.
        encoder: Its preprocessing limits the size of images.
        skip_unreadable: Leave out files that cannot be read, with a warning.

    Raises:
        InputError: If a file cannot be read, unless `skip_unreadable`. It names the first ones and the number of all.
    """
    given = list(files)
    if skip_unreadable and (unreadable := _unreadable(given, encoder)):
        readable = [file for file in given if file not in unreadable]
        if not readable:
            raise InputError(f"no image can be read: {_listed(unreadable)}")
        number = "1 image" if len(unreadable) == 1 else f"{len(unreadable):,} images"
        warnings.warn(f"left out {number} that cannot be read: {_listed(unreadable)}", stacklevel=2)
        given = readable
    try:
        return given, function(given)
    except InputError as error:
        from simjax.data import UnreadableImageError

        if not isinstance(error.__cause__, UnreadableImageError) or not (unreadable := _unreadable(given, encoder)):
            raise
        advice = "`skip_unreadable=True` leaves out such images"
        if len(unreadable) == 1:
            (file, reason), *_ = unreadable.items()
            raise InputError(f"{file}: cannot be read ({reason}); {advice}") from error
        raise InputError(f"{len(unreadable):,} images cannot be read: {_listed(unreadable)}; {advice}") from error


def encode_files(
    encoder: Any, files: Sequence[Path], *, skip_unreadable: bool, **options: Any
) -> tuple[list[Path], np.ndarray]:
    """Return the files that can be read, see `of_readable`, and their embeddings; `options` are of `Encoder.encode`."""
    return of_readable(
        lambda readable: encoder.encode(readable, progress=encoding_progress(), **options),
        files,
        encoder,
        skip_unreadable=skip_unreadable,
    )


def identities_of(files: Sequence[Path], all_files: Sequence[Path], identities: Sequence[str]) -> list[str]:
    """Return the identities of some files, from those of all files."""
    by_file = dict(zip(all_files, identities, strict=True))
    return [by_file[file] for file in files]


def _unreadable(files: Sequence[Path], encoder: Any) -> dict[Path, str]:
    """Return the files that cannot be decoded, each with the reason."""
    from simjax.data._decode import ReadOptions, unreadable_images

    preprocessing = encoder.config.preprocessing
    options = ReadOptions(input_range=preprocessing.input_range, max_pixels=preprocessing.max_pixels)
    return {files[error.index]: error.reason for error in unreadable_images(files, options)}


def _listed(unreadable: dict[Path, str]) -> str:
    """Return the first files with their reasons, and the number of further ones."""
    named = [f"{file} ({reason})" for file, reason in list(unreadable.items())[:MAX_NAMED]]
    more = len(unreadable) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")
