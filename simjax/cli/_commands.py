"""`simjax report`, `simjax compare`, `simjax data prepare` and `simjax data export`."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from simjax.cli._arguments import parse
from simjax.cli._results import check_new_folder, open_page
from simjax.report._numbers import quantity
from simjax.train._progress import print_line
from simjax.train._settings import Reading


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare runs on the same data: one table and one figure."""

    runs: Positional[tuple[str, ...]]
    """Folders of two or more finished runs."""
    out: str
    """Folder for compare.md, compare.html and compare.json."""
    open: bool = False
    """Open the page in the web browser."""


@dataclasses.dataclass(frozen=True)
class ReportArguments:
    """Write the report of a finished run again: report.html, report.md and figures."""

    run: Positional[str]
    """Folder of a finished run."""
    projection: Literal["pca", "tsne"] = "pca"
    """How the map of the embeddings is drawn."""
    open: bool = False
    """Open the page in the web browser."""


@dataclasses.dataclass(frozen=True)
class PrepareArguments:
    """Prepare a data set from its original files, without TensorFlow."""

    name: Positional[str]
    """mnist, fashion_mnist, cifar10 or cifar100."""
    source: Annotated[str | None, arg(name="from")] = None
    """Folder of the original files. Default: they are downloaded, and their checksums are verified."""
    data_dir: str | None = None
    """Folder for the prepared data set. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write a data set as PNG files, one sub-folder per class."""

    name: Positional[str]
    """A data set, as for the option --dataset of train."""
    out: str
    """A new folder for the images."""
    split: Literal["train", "test", "all"] = "all"
    """The images to write."""
    classes: tuple[str, ...] | None = None
    """Names of the classes to write. Default: all classes."""
    data_dir: str | None = None
    """Folder of prepared data sets. Default: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    cache_gigabytes: float = 4.0
    """Maximum size of the cache of decoded images; 0 disables the cache."""
    data: Reading = Reading()


def compare(arguments: Sequence[str]) -> None:
    """Write a comparison of runs and print its path."""
    parsed = parse(CompareArguments, arguments)
    from simjax import report

    out = Path(os.path.expanduser(parsed.out))
    page = out / "compare.html"
    report.compare([Path(os.path.expanduser(run)) for run in parsed.runs], out)
    print_line(f"comparison: {page}")
    if parsed.open:
        open_page(page)


def report(arguments: Sequence[str]) -> None:
    """Write the report of a run and print its path."""
    parsed = parse(ReportArguments, arguments)
    from simjax import report

    run = Path(os.path.expanduser(parsed.run))
    report.write(run, projection=parsed.projection)
    page = run / "report.html"
    print_line(f"report: {page}")
    if parsed.open:
        open_page(page)


def prepare(arguments: Sequence[str]) -> None:
    """Prepare a data set and print its folder."""
    parsed = parse(PrepareArguments, arguments)
    from simjax.data import prepare
    from simjax.train._progress import PreparationDisplay

    print_line(f"prepared: {prepare(parsed.name, parsed.data_dir, parsed.source, progress=PreparationDisplay())}")


def export(arguments: Sequence[str]) -> None:
    """Export a data set and print the number of images."""
    parsed = parse(ExportArguments, arguments)
    check_new_folder("out", parsed.out)
    from simjax.data import export, load
    from simjax.train._progress import PreparationDisplay

    images = load(
        parsed.name,
        parsed.split,
        parsed.data_dir,
        cache_gigabytes=parsed.cache_gigabytes,
        progress=PreparationDisplay(),
        **{field.name: getattr(parsed.data, field.name) for field in dataclasses.fields(Reading)},
    )
    number = export(images, Path(parsed.out), parsed.classes)
    print_line(f"{quantity(number, 'image')} in {parsed.out}")
