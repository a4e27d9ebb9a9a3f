"""`simjax train`: settings from options, a TOML file or the run to resume; training, evaluation and the report."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from simjax._compilation_cache import enable_compilation_cache
from simjax.cli._arguments import options_of, parse, values_after
from simjax.cli._help import as_typed
from simjax.cli._interrupt import exit_on_interrupt
from simjax.cli._results import open_page
from simjax.core import InputError
from simjax.train._progress import print_line
from simjax.train._settings import Settings, load_toml

# Options that the short help shows.
COMMON = (
    *("model", "dataset", "test_dataset", "objective", "mining.miner", "epochs", "batch_size", "embedding_size"),
    *("optimizer.learning_rate", "seed", "out", "config", "resume", "overwrite", "open"),
)
RECIPE_NOTE = "The recipe is the set of defaults for this model and data set."  # explains a word of `default_texts`
EXAMPLES = (
    "--model vit",
    "--dataset folder:photos --objective triplet --epochs 20",
    "--resume --out runs/vit-digits-softmax-0",
)


@dataclasses.dataclass(frozen=True)
class TrainArguments(Settings):
    """Train an encoder of images, evaluate it on test images and write a report."""

    out: str | None = None
    """Folder of the run. Default: runs/MODEL-DATASET-OBJECTIVE-SEED."""
    config: str | None = None
    """TOML file with settings; options take precedence."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint, with the settings of that run."""
    overwrite: bool = False
    """Replace the run in --out."""
    open: bool = False
    """Open the report in the web browser when done."""


def train(arguments: Sequence[str]) -> None:
    """Train, evaluate, write the report, and print a summary."""
    parsed = parse(TrainArguments, arguments, default=_as_arguments(_base_settings(arguments)))
    settings = _as_settings(parsed)
    out = _folder_of(parsed)
    enable_compilation_cache()
    from simjax.report import summary_lines
    from simjax.train import Interrupted

    config = out / "config.json"
    config_time = _modification_time(config)
    how_to_resume = f"go on with: {shlex.join(['python', 'train.py', '--resume', '--out', str(out)])}"

    def after_interrupt() -> str:
        # Before the settings are saved, the folder has no run, or the run that --overwrite replaces.
        has_run = parsed.resume or _modification_time(config) != config_time
        return f"interrupted; {how_to_resume}" if has_run else "interrupted"

    command = shlex.join(["python", "train.py", *arguments])
    try:
        with exit_on_interrupt(after_interrupt):
            report = train_and_report(settings, out, resume=parsed.resume, overwrite=parsed.overwrite, command=command)
    except Interrupted as stop:
        print_line(f"stopped at step {stop.step:,}; {how_to_resume}", stderr=True)
        sys.exit(130)
    page = out / "report.html"
    for line in (*summary_lines(report), f"report: {page}"):
        print_line(line)
    if parsed.open:
        open_page(page)


def train_and_report(
    settings: Settings, out: Path, *, resume: bool = False, overwrite: bool = False, command: str = ""
) -> dict[str, Any]:
    """Train an encoder, evaluate it and write report.html, report.md and figures, as the command `simjax train` does.

    Args:
        settings: Settings of the run. A setting that is None gets the default for the model and the data set.
        out: Folder of the run.
        resume: Continue the run in `out` from its last checkpoint.
        overwrite: Replace the run in `out`.
        command: Command line to save in config.json.

    Returns:
        The content of report.json.

    Raises:
        InputError: If the settings, the images or the folder cannot be used.
        Interrupted: On Ctrl-C during training, after a checkpoint was saved.
    """
    from simjax import report
    from simjax.train import train
    from simjax.train._progress import phase

    result = train(settings, out, resume=resume, overwrite=overwrite, command=command)
    with phase("writing the report", report.SECTIONS) as begin:
        report.write(out, begin)
    return result.report


def default_texts(arguments: Sequence[str]) -> Mapping[str, str]:
    """Return a description of the default of each setting by its dotted name, for the help.

    A setting that is None gets its value from the recipe (defaults for this model and data set), from the objective or
    from the miner. For a setting in the arguments or in a TOML file, the description is the given value.
    """
    from simjax.train._recipes import fill_defaults

    try:
        settings = _as_settings(parse(TrainArguments, arguments, default=_as_arguments(_base_settings(arguments))))
    except InputError:  # the help is shown for invalid arguments, too
        settings = Settings()
    # The help does not read the images. A default that differs between these numbers of images depends on them.
    alternatives = settings, fill_defaults(settings, 100), fill_defaults(settings, 10_000_000)
    texts: dict[str, str] = {}
    for option in options_of(Settings):
        value, for_few_images, for_many_images = map(attrgetter(option.name), alternatives)
        section = option.name.rpartition(".")[0]
        if value is not None:
            texts[option.name] = as_typed(value)
        elif for_few_images != for_many_images:
            texts[option.name] = "depends on the number of training images"
        elif for_few_images is not None:
            texts[option.name] = f"from the recipe: {as_typed(for_few_images)}"
        elif section in ("loss", "mining"):
            texts[option.name] = "set by the objective" if section == "loss" else "set by the miner"
    return texts


def default_out(settings: Settings) -> str:
    """Return the folder of a run, named after its model, data set, objective and seed."""
    data = settings.dataset if settings.test_dataset is None else f"{settings.dataset}-{settings.test_dataset}"
    name = f"{settings.model}-{data}-{settings.objective}-{settings.seed}"
    return "runs/" + "".join(c if c.isalnum() or c in "-_+." else "_" for c in name)


def _base_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings before options are applied: those of the run to resume, of a TOML file, or the defaults."""
    config = values_after("--config", arguments)
    base = load_toml(config[0]) if config else Settings()
    if "--resume" not in arguments:
        return base
    from simjax.train._run_folder import RunFolder

    parsed = parse(TrainArguments, arguments, default=_as_arguments(base))
    return RunFolder(_folder_of(parsed)).saved_settings()


def _folder_of(arguments: TrainArguments) -> Path:
    """Return the folder of the run."""
    return Path(os.path.expanduser(arguments.out or default_out(_as_settings(arguments))))


def _as_arguments(settings: Settings) -> TrainArguments:
    return TrainArguments(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Settings)})


def _as_settings(arguments: TrainArguments) -> Settings:
    return Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})


def _modification_time(path: Path) -> int | None:
    return path.stat().st_mtime_ns if os.path.isfile(path) else None
