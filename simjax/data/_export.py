"""Write images of a data set as folders of PNG files, one sub-folder a class.

So a set becomes something to look at, to change by hand, or to split by class: some classes to learn from, others that
are met only in the test.
"""

import shutil
from pathlib import Path

from simjax.core import InputError, suggestion
from simjax.data._dataset import Dataset


def export(dataset: Dataset, out: Path, classes: tuple[str, ...] | None = None) -> int:
    """Write the images of some classes as out/CLASS/INDEX.png.

    Args:
        dataset: what to write.
        out: a folder that does not exist yet; it appears whole or not at all.
        classes: names of classes; None is all.

    Returns:
        How many images were written.

    Raises:
        InputError: for an unknown class, or if the folder exists or cannot be written.
    """
    from PIL import Image

    names = dataset.class_names if classes is None else classes
    for name in names:
        if name not in dataset.class_names:
            raise InputError(f"unknown class {name!r}{suggestion(name, dataset.class_names)}")
    if out.exists():
        raise InputError(f"{out} exists: choose another folder")
    work = out.with_name(f".{out.name}.part")
    written = 0
    try:
        for name in names:
            folder = work / name.replace("/", "_")
            folder.mkdir(parents=True)
            for row in (dataset.labels == dataset.class_names.index(name)).nonzero()[0]:
                image = dataset.images[row]
                Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{row:06d}.png")
                written += 1
        work.rename(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return written
