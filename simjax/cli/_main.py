"""The command line, `simjax COMMAND ...`, also as `python -m simjax COMMAND ...`.

A mistake of the user ends in one line `error: ...` on stderr and exit status 2. Only a bug leaves a traceback.
"""

import difflib
import functools
import io
import os
import re
import shutil
import signal
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import simjax
from simjax.cli import _commands, _encoders, _explain, _gallery, _gallery_duplicates, _gallery_search, _study, _train
from simjax.cli._arguments import did_you_mean, with_flags
from simjax.cli._help import Command, help_text
from simjax.cli._interrupt import exit_on_interrupt
from simjax.core import InputError
from simjax.train._progress import print_line

HELP_OPTIONS = {"-h", "--help", "--help-all"}

COMMANDS = {
    "train": Command(
        _train.train, _train.TrainArguments, _train.EXAMPLES, _train.COMMON, _train.default_texts, _train.RECIPE_NOTE
    ),
    "report": Command(
        _commands.report, _commands.ReportArguments, ["runs/vit-digits-softmax-0 --projection tsne --open"]
    ),
    "compare": Command(
        _commands.compare,
        _commands.CompareArguments,
        ["runs/cnn-digits-softmax-0 runs/vit-digits-softmax-0 --out both"],
    ),
    "study": Command(_study.study, _study.StudyArguments, ["configs/studies/digits.toml"]),
    "data prepare": Command(
        _commands.prepare, _commands.PrepareArguments, ["mnist", "mnist --from FOLDER_OF_THE_IDX_FILES"]
    ),
    "data export": Command(
        _commands.export,
        _commands.ExportArguments,
        ["mnist --split train --classes 0 1 2 --out images"],
        common=("name", "out", "split", "classes", "data_dir", "data.image_size", "data.skip_unreadable"),
    ),
    "encoders": Command(_encoders.encoders, _encoders.EncodersArguments),
    "embed": Command(_encoders.embed, _encoders.EmbedArguments, ["digits-cnn photos --out photos.npz"]),
    "classify": Command(_encoders.classify, _encoders.ClassifyArguments, ["runs/cnn-digits-softmax-0 photos --top 3"]),
    "calibrate": Command(
        _encoders.calibrate,
        _encoders.CalibrateArguments,
        ["runs/cnn-digits-softmax-0 --images FOLDER", "mnist-cnn --images FOLDER --out COPY"],
    ),
    "verify": Command(_encoders.verify, _encoders.VerifyArguments, ["glyphs-cnn a.png b.png --fmr 0.01"]),
    "fid": Command(_encoders.fid, _encoders.FIDArguments, ["digits-cnn real generated"]),
    "explain": Command(
        _explain.explain,
        _explain.ExplainArguments,
        [
            "runs/cnn-digits-softmax-0 a.png --out why.html",
            "glyphs-cnn a.png b.png --out why.html",
            "glyphs-cnn a.png --gallery people.gallery --out why.html",
        ],
    ),
    "gallery create": Command(
        _gallery.create,
        _gallery.CreateArguments,
        ["people.gallery --encoder ENCODER --images FOLDER", "photos.gallery --encoder ENCODER --images FOLDER --flat"],
    ),
    "gallery add": Command(
        _gallery.add, _gallery.AddArguments, ["people.gallery new.png --identity Ada --metadata source=camera"]
    ),
    "gallery remove": Command(
        _gallery.remove, _gallery.RemoveArguments, ["people.gallery 3 7", "people.gallery --identity Ada"]
    ),
    "gallery search": Command(
        _gallery_search.search,
        _gallery_search.SearchArguments,
        ["photos.gallery query.png -k 10 --where source=camera --html hits.html"],
    ),
    "gallery identify": Command(
        _gallery_search.identify, _gallery_search.IdentifyArguments, ["people.gallery probe.png --fpir 0.01"]
    ),
    "gallery recommend": Command(
        _gallery_search.recommend, _gallery_search.RecommendArguments, ["photos.gallery --like 3 7 -k 10"]
    ),
    "gallery duplicates": Command(
        _gallery_duplicates.duplicates,
        _gallery_duplicates.DuplicatesArguments,
        ["photos.gallery", "photos.gallery --min-score 0.999 --html pairs.html", "FOLDER --encoder efficientnet-lite0"],
    ),
    "gallery verify": Command(
        _gallery_search.verify, _gallery_search.GalleryVerifyArguments, ["people.gallery a.png b.png"]
    ),
    "gallery calibrate": Command(
        _gallery.calibrate, _gallery.GalleryCalibrateArguments, ["people.gallery --images OTHER_PEOPLE"]
    ),
    "gallery copy": Command(_gallery.copy, _gallery.CopyArguments, ["people.gallery copy.gallery"]),
    "gallery index": Command(
        _gallery.index, _gallery.IndexArguments, ["postgresql://HOST/DATABASE?gallery=people --candidates 200"]
    ),
    "gallery info": Command(_gallery.info, _gallery.InfoArguments, ["people.gallery --json"]),
    "gallery list": Command(_gallery.list_items, _gallery.ListArguments, ["people.gallery --where identity=Ada"]),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; the exit status is 0, 2 (a mistake of the user), 130 (interrupted) or 141 (output closed)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may have bytes that are no text
    name = next((name for name in (" ".join(arguments[:n]) for n in (1, 2)) if name in COMMANDS), None)
    command = COMMANDS[name] if name is not None else None
    dataclass = None if command is None else command.dataclass
    warnings.showwarning = functools.partial(_show_warning_once, dataclass, set())
    try:
        with exit_on_interrupt(lambda: "interrupted"):
            if arguments == ["--version"]:
                print_line(f"simjax {simjax.__version__}")
            elif command is None or name is None:
                print(_list_of_commands(arguments))
            elif HELP_OPTIONS.intersection(arguments):
                print(_help(name, command, arguments[len(name.split()) :]), end="")
            else:
                command.run(arguments[len(name.split()) :])
            sys.stdout.flush()
    except InputError as error:
        fail(with_flags(str(error), dataclass))
    except BrokenPipeError:  # a pipe such as `| head` was closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _list_of_commands(arguments: Sequence[str]) -> str:
    """Return a list of all commands, or of the commands that begin with the given word, such as `data`.

    Raises:
        InputError: If the arguments name an unknown command.
    """
    words = [word for word in arguments if word not in HELP_OPTIONS]
    listed = {name: command for name, command in COMMANDS.items() if not words or name.split()[:-1] == words}
    if not listed:
        # A command has one or two words. Of two, the second one may be its argument, such as a folder.
        near = [difflib.get_close_matches(" ".join(words[:n]).lower(), COMMANDS, n=1, cutoff=0.8) for n in (2, 1)]
        is_group = any(name.startswith(f"{words[0]} ") for name in COMMANDS)
        got = " ".join(words[:2] if is_group or near[0] else words[:1])
        otherwise = "simjax --help lists the commands"
        advice = otherwise if words[0].startswith("-") else did_you_mean(got, COMMANDS, otherwise)
        if nearest := near[0] or near[1]:
            advice = f"did you mean {nearest[0]}?"
        raise InputError(f"unknown command {got!r}; {advice}")
    lines = [f"usage: simjax {' '.join(words)} COMMAND ..." if words else "usage: simjax COMMAND ... | --version", ""]
    for name, command in listed.items():
        first_clause = re.split(r"[,:.]\s|[.]$", command.dataclass.__doc__ or "")[0]
        text = f"  {name:<20}{first_clause}"
        lines += textwrap.wrap(text, shutil.get_terminal_size().columns, subsequent_indent=" " * 22)
    return "\n".join([*lines, "", "simjax COMMAND --help lists its options."])


def _help(name: str, command: Command, arguments: Sequence[str]) -> str:
    program = "python train.py" if Path(sys.argv[0]).name == "train.py" else f"simjax {name}"
    typed = [word for word in arguments if word not in HELP_OPTIONS]
    width = min(shutil.get_terminal_size().columns, 100)
    return help_text(command, program, typed, show_all="--help-all" in arguments, width=width)


def fail(message: str) -> None:
    """Print one line on stderr and exit with status 2."""
    print_line(f"error: {' '.join(message.split())}", stderr=True)
    sys.exit(2)


def _show_warning_once(
    dataclass: type | None,
    shown: set[str],
    message: Warning | str,
    category: type[Warning],
    *rest: object,
    **options: object,
) -> None:
    """Print a UserWarning once, in one line. Warnings of other categories come from libraries and are not printed."""
    if category is UserWarning and str(message) not in shown:
        shown.add(str(message))
        print_line(f"warning: {with_flags(str(message), dataclass)}", stderr=True)
