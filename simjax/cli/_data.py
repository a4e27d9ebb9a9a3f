"""`simjax data prepare NAME [--from DIR]` and `simjax data export NAME --out DIR`."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from simjax.cli._arguments import parse
from simjax.core import check_choice
from simjax.train._settings import Reading


@dataclasses.dataclass(frozen=True)
class PrepareArguments:
    """Prepare a data set from its original files, given or downloaded, without TensorFlow."""

    name: Positional[str]
    """mnist, fashion_mnist, cifar10 or cifar100"""
    source: Annotated[str | None, arg(name="from")] = None
    """folder of the original files; without it they are downloaded and their checksums verified"""
    data_dir: str | None = None
    """where it goes; None is $TFDS_DATA_DIR or ~/tensorflow_datasets"""


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write images of a data set as PNG files, one sub-folder a class."""

    name: Positional[str]
    """as --dataset of train"""
    out: str
    """a folder that does not exist yet"""
    split: Literal["train", "test", "all"] = "all"
    """which images"""
    classes: tuple[str, ...] | None = None
    """names of classes; None is all"""
    data_dir: str | None = None
    """where prepared data sets lie"""
    cache_gigabytes: float = 4.0
    """largest size of the decoded images of prepared data sets in the user's cache folder; 0 stores none"""
    data: Reading = Reading()


def data(arguments: Sequence[str]) -> None:
    """Run one of the commands on data."""
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<10}{kind.__doc__}" for name, (_, kind) in COMMANDS.items())
        print(f"usage: simjax data COMMAND ...\n\n{lines}\n\nsimjax data COMMAND --help says more")
        return
    run, _ = COMMANDS[check_choice("data command", arguments[0], COMMANDS)]
    run(arguments[1:])


def _prepare(arguments: Sequence[str]) -> None:
    parsed = parse(PrepareArguments, arguments, prog="simjax data prepare")
    from simjax.data import prepare
    from simjax.train._progress import PreparationDisplay

    where = prepare(parsed.name, parsed.data_dir, parsed.source, progress=PreparationDisplay())
    print(f"prepared: {where}")


def _export(arguments: Sequence[str]) -> None:
    parsed = parse(ExportArguments, arguments, prog="simjax data export")
    from simjax.data import export, load
    from simjax.train._progress import PreparationDisplay

    options = {field.name: getattr(parsed.data, field.name) for field in dataclasses.fields(Reading)}
    options |= {"cache_gigabytes": parsed.cache_gigabytes, "progress": PreparationDisplay()}
    found = load(parsed.name, parsed.split, parsed.data_dir, **options)
    written = export(found, Path(parsed.out), parsed.classes)
    print(f"{written:,} images in {parsed.out}")


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], type]] = {
    "prepare": (_prepare, PrepareArguments),
    "export": (_export, ExportArguments),
}
