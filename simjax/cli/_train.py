"""`simjax train`: settings from a TOML file, a run to resume, and flags; then training and the report."""

import dataclasses
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from simjax._files import user_cache
from simjax.cli._arguments import parse
from simjax.train._settings import Settings, from_dict, load_toml, to_dict


@dataclasses.dataclass(frozen=True)
class TrainArguments(Settings):
    """Train an encoder of images, evaluate it on test images and write a report."""

    out: str | None = None
    """the run's folder; None is runs/MODEL-DATASET-OBJECTIVE-SEED"""
    config: str | None = None
    """a TOML file of settings; flags take precedence"""
    resume: bool = False
    """go on from the newest checkpoint in --out; settings come from there"""
    overwrite: bool = False
    """start again in a folder that holds a run"""


def train(arguments: Sequence[str]) -> None:
    """Parse, train, write the report, and print where it is."""
    given = _as_arguments(_base(arguments))
    parsed = parse(TrainArguments, arguments, prog="train.py", default=given)
    settings = _as_settings(parsed)
    out = Path(parsed.out or default_out(settings))
    _use_compilation_cache()

    from simjax import report
    from simjax.train import Interrupted
    from simjax.train import train as run

    command = shlex.join(["python", "train.py", *arguments])
    try:
        found = run(settings, out, resume=parsed.resume, overwrite=parsed.overwrite, command=command)
    except Interrupted as stop:
        again = shlex.join(["python", "train.py", "--resume", "--out", str(stop.folder)])
        sys.stderr.write(f"stopped at step {stop.step:,}; go on with: {again}\n")
        sys.exit(130)
    report.write(out)
    print("\n".join([*report.summary_lines(found.report), f"report: {out / 'report.html'}"]))


def default_out(settings: Settings) -> str:
    """A run's folder, named by what was chosen."""
    data = settings.dataset if settings.test_dataset is None else f"{settings.dataset}-{settings.test_dataset}"
    name = f"{settings.model}-{data}-{settings.objective}-{settings.seed}"
    return "runs/" + "".join(c if c.isalnum() or c in "-_+." else "_" for c in name)


def _base(arguments: Sequence[str]) -> Settings:
    """What the flags change: the settings of a run to resume, those of a TOML file, or the defaults."""
    config = _value(arguments, "--config")
    base = load_toml(config) if config is not None else Settings()
    if "--resume" not in arguments:
        return base
    from simjax.train._run_folder import RunFolder

    named = parse(TrainArguments, arguments, prog="train.py", default=_as_arguments(base))
    return RunFolder(Path(named.out or default_out(_as_settings(named)))).saved_settings()


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag that must be known before the others can be parsed."""
    for i, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            return argument[len(flag) + 1 :]
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


def _as_arguments(settings: Settings) -> TrainArguments:
    return TrainArguments(**{f.name: getattr(settings, f.name) for f in dataclasses.fields(Settings)})


def _as_settings(arguments: TrainArguments) -> Settings:
    values = {name: value for name, value in to_dict(arguments).items() if name in Settings.__dataclass_fields__}
    return from_dict(values)


def _use_compilation_cache() -> None:
    """Keep what XLA compiles in the user's cache folder, so that the second start is fast."""
    import jax

    cache = user_cache()
    if cache is not None and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # A full or read-only disk only costs time, but JAX would warn of each of many functions.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
