"""`simjax data prepare NAME [--from DIR]`."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from simjax.cli._arguments import parse
from simjax.core._checks import check_choice


@dataclasses.dataclass(frozen=True)
class PrepareArguments:
    """Prepare a data set from its original files, given or downloaded, without TensorFlow."""

    name: Positional[str]
    """mnist, fashion_mnist, cifar10 or cifar100"""
    source: Annotated[str | None, arg(name="from")] = None
    """folder of the original files; without it they are downloaded and their checksums verified"""
    data_dir: str | None = None
    """where it goes; None is $TFDS_DATA_DIR or ~/tensorflow_datasets"""


def data(arguments: Sequence[str]) -> None:
    """Parse, prepare, and print where the data set is."""
    if arguments and arguments[0] not in ("-h", "--help"):
        check_choice("command", f"data {arguments[0]}", ["data prepare"])
    parsed = parse(PrepareArguments, arguments[1:] or ["--help"], prog="simjax data prepare")
    from simjax.data import prepare

    where = prepare(parsed.name, parsed.data_dir, parsed.source, progress=print)
    print(f"prepared: {where}")  # noqa: T201
