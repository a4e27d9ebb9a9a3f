"""Read files of others: regular files only, and images only in formats whose readers start no program."""

import errno
import functools
import os
import stat
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Formats that Pillow identifies but cannot decode. It would start Ghostscript, a program, for EPS.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def check_regular_file(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if a path is not a file, or a link to one. To read a pipe or a device can take for ever.

    The attribute `strerror` of the error is the reason without the path.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:
        raise OSError(errno.EINVAL, "A path has no null character") from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "It is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is a pipe, a socket or a device, not a file")


def open_image(source: str | os.PathLike[str] | bytes) -> "Image.Image":
    """Open an image with Pillow from its file or from the content of a file."""
    from PIL import Image

    if isinstance(source, bytes):
        return Image.open(BytesIO(source), formats=readable_formats())
    check_regular_file(source)
    return Image.open(source, formats=readable_formats())


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of the image formats that Pillow can decode, the most common ones first."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_DECODED)
