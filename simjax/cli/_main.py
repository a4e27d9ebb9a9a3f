"""The command line: `simjax train | compare | data prepare`, also as `python -m simjax`.

A mistake of the user's ends in one line `error: ...` on stderr and exit status 2; only a mistake of ours leaves a
traceback.
"""

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from simjax.cli._arguments import with_flags
from simjax.cli._compare import CompareArguments, compare
from simjax.cli._data import COMMANDS as DATA_COMMANDS
from simjax.cli._data import data
from simjax.cli._train import TrainArguments, train
from simjax.core import InputError, suggestion

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (train, "train an encoder of images, evaluate it and write a report"),
    "compare": (compare, "one table and one picture of several runs"),
    "data": (data, "prepare a data set"),
}
ARGUMENTS: dict[tuple[str, ...], type] = {
    ("train",): TrainArguments,
    ("compare",): CompareArguments,
    **{("data", name): kind for name, (_, kind) in DATA_COMMANDS.items()},
}
"""The arguments of each command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exits with 0, 2 (a mistake of the user's), 130 (interrupted) or 141 (output closed)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    kind = ARGUMENTS.get(tuple(arguments[:1])) or ARGUMENTS.get(tuple(arguments[:2]))
    warnings.showwarning = functools.partial(_one_line_warning, kind, set())
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            lines = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
            print("usage: simjax COMMAND ...\n\n" + "\n".join(lines) + "\n\nsimjax COMMAND --help says more")
            return
        if arguments[0] not in COMMANDS:
            raise InputError(f"unknown command {arguments[0]!r}{suggestion(arguments[0], COMMANDS)}")
        COMMANDS[arguments[0]][0](arguments[1:])
    except InputError as error:
        fail(with_flags(str(error), kind))
    except BrokenPipeError:  # what read our output, `head` say, has gone: no reason to complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def fail(message: str) -> None:
    """One line on stderr, and exit status 2."""
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    sys.exit(2)


def _one_line_warning(
    kind: type | None,
    shown: set[str],
    message: Warning | str,
    category: type[Warning],
    *rest: object,
    **options: object,
) -> None:
    """Our own warnings are for the user, each once and in one line; those of libraries are not."""
    if category is UserWarning and str(message) not in shown:
        shown.add(str(message))
        sys.stderr.write(f"warning: {with_flags(str(message), kind)}\n")
