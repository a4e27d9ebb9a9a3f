"""The training loop: settings in, a run's folder out."""

import signal
import statistics
import time
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from simjax.core import InputError
from simjax.data import Augmentation, epoch_order
from simjax.data import statistics as pixel_statistics
from simjax.nn import count_parameters
from simjax.train._checkpoint import Checkpoints
from simjax.train._encode import Encoder
from simjax.train._environment import environment
from simjax.train._learner import build_learner
from simjax.train._objective import Objective, build_objective
from simjax.train._outcome import evaluate_run
from simjax.train._progress import ProgressDisplay, say
from simjax.train._recipes import complete
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings, to_dict, validate
from simjax.train._sources import Sources, load_sources
from simjax.train._step import Pixels, State, build_optimizer, build_step, fresh_metrics, fresh_state

LOG_LINES = 100
VALIDATIONS = 10


class Interrupted(Exception):
    """Training was stopped from outside after saving a checkpoint; the message says how to go on."""


def train(
    settings: Settings, out: Path, *, resume: bool = False, overwrite: bool = False, command: str = ""
) -> dict[str, Any]:
    """Train, evaluate, and leave everything in a folder.

    Args:
        settings: what to train; `None`s are filled in by the recipes.
        out: the run's folder.
        resume: go on from the folder's newest checkpoint.
        overwrite: start again in a folder that holds a run.
        command: kept in config.json.

    Returns:
        The report, as in report.json.

    Raises:
        InputError: for anything a user can mend.
        Interrupted: on Ctrl-C, when the state is saved.
    """
    validate(settings)
    settings = complete(settings)
    folder = RunFolder(out)
    folder.begin(settings, resume=resume, overwrite=overwrite)
    say(f"{settings.model} on {settings.dataset}, {settings.objective}, seed {settings.seed}: {out}")
    sources = load_sources(settings)
    shape = tuple(int(extent) for extent in sources.train.images.shape[1:])
    classes = len(sources.train.class_names)
    learner = build_learner(settings, (shape[0], shape[1], shape[2]), classes, settings.seed)
    objective = build_objective(settings, sources.train.labels, classes)
    steps = settings.steps or max(1, round((settings.epochs or 1) * objective.steps_per_epoch))
    config = {
        "settings": to_dict(settings),
        "command": command,
        "versions": environment()["versions"],
        "data": {
            "fingerprint": sources.fingerprint,
            "train_images": len(sources.train.labels),
            "validation_images": len(sources.validation.labels),
            "test_images": len(sources.test.labels),
            "class_names": list(sources.train.class_names),
            "test_class_names": list(sources.test.class_names),
            "image_shape": list(shape),
        },
    }
    if not resume:
        folder.clear()
        folder.write_json("config.json", config)
    say(
        f"{len(sources.train.labels):,} training, {len(sources.validation.labels):,} validation, "
        f"{len(sources.test.labels):,} test images of {'x'.join(map(str, shape))}; {classes} classes; "
        f"{count_parameters(learner):,} parameters; {steps:,} steps of {objective.images} images"
    )
    structure, state, times = _fit(settings, folder, sources, learner, objective, steps, resume=resume)
    encoder = Encoder(structure, state.params, state.statistics, _pixels(settings, sources))
    report = evaluate_run(settings, folder, sources, encoder, objective)
    report |= {
        "steps": steps,
        "parameters": count_parameters(learner),
        "train_seconds": times["seconds"],
        "step_milliseconds": times["step_milliseconds"],
        "images_per_second": 1000 * objective.images / times["step_milliseconds"],
        "environment": environment(),
    }
    folder.write_json("report.json", report)
    return report


def _pixels(settings: Settings, sources: Sources) -> Pixels:
    channels = sources.train.images.shape[3]
    if settings.data.scaling == "unit":
        return Pixels(jnp.zeros(channels), jnp.ones(channels))
    mean, std = pixel_statistics(sources.train.images)
    return Pixels(jnp.asarray(mean), jnp.asarray(std))


def _fit(
    settings: Settings,
    folder: RunFolder,
    sources: Sources,
    learner: Any,
    objective: Objective,
    steps: int,
    *,
    resume: bool,
) -> tuple[Any, State, dict[str, float]]:
    """Take the steps, from the newest checkpoint if there is one to resume."""
    optimizer, schedule = build_optimizer(settings, steps)
    structure, state = fresh_state(learner, optimizer, settings.seed)
    a = settings.augment
    augmentation = Augmentation(a.shift or 0.0, a.rotation or 0.0, a.scale or 0.0, a.flip or False)
    step = build_step(structure, optimizer, objective, augmentation)
    checkpoints = Checkpoints(folder.checkpoints)
    before = 0.0
    if resume and (found := checkpoints.restore(state)) is not None:
        state, before = found
        say(f"resumed at step {int(state.step):,} of {steps:,}")
    folder.keep_metrics_until(int(state.step))

    pixels = _pixels(settings, sources)
    images, labels = jnp.asarray(sources.train.images), jnp.asarray(sources.train.labels)
    orders = jax.jit(lambda key, epoch: epoch_order(jax.random.fold_in(key, epoch), len(sources.train.labels)))
    order_key = jax.random.key(settings.seed + 1)
    log_every = max(1, steps // LOG_LINES)
    validate_every = max(log_every, steps // VALIDATIONS // log_every * log_every)

    at = logged = int(state.step)
    start = logged_time = saved_time = time.perf_counter()
    step_times: list[float] = []
    order, order_epoch = jnp.zeros(0, jnp.int32), -1
    with _InterruptFlag() as interrupt, ProgressDisplay(steps, at) as display:
        while at < steps:
            if at // objective.steps_per_epoch != order_epoch:
                order_epoch = at // objective.steps_per_epoch
                order = orders(order_key, order_epoch)
            state = step(state, images, labels, order, pixels)
            at += 1
            if at % log_every and at < steps and not interrupt.raised:
                continue
            metrics = jax.device_get(state.metrics)  # waits for the device: everything before is done
            if metrics.first_bad_step >= 0:
                raise InputError(
                    f"the loss or its gradient is not finite at step {metrics.first_bad_step + 1}; the last good "
                    f"checkpoint is kept in {folder.checkpoints}; try a lower --optimizer.learning-rate"
                )
            now = time.perf_counter()
            if logged > 0 or len(step_times):  # the first stretch holds the compilation
                step_times.append((now - logged_time) / (at - logged))
            seconds = before + now - start
            line = {
                "step": at,
                "epoch": at / objective.steps_per_epoch,
                "loss": float(metrics.loss / metrics.steps),
                "accuracy": float(metrics.correct / metrics.steps / objective.images)
                if settings.objective == "softmax"
                else None,
                "learning_rate": float(schedule(at - 1)),
                "images_per_second": objective.images * (at - logged) / (now - logged_time),
                "seconds": seconds,
            }
            if at % log_every == 0 or at == steps:
                folder.log(line)
                state = state._replace(metrics=fresh_metrics())
                if at % validate_every == 0 or at == steps:
                    _validate(settings, folder, display, structure, state, pixels, sources, objective)
            display.update(line, (steps - at) * (now - start) / max(1, at - int(logged == at)))
            logged, logged_time = at, time.perf_counter()
            if at == steps or interrupt.raised or time.perf_counter() - saved_time >= settings.checkpoint_seconds:
                checkpoints.save(state, before + time.perf_counter() - start)
                saved_time = logged_time = time.perf_counter()
            if interrupt.raised and at < steps:
                raise Interrupted(f"stopped at step {at:,}; go on with: python train.py --resume --out {folder.path}")
    checkpoints.close()
    seconds = before + time.perf_counter() - start
    milliseconds = 1000 * statistics.median(step_times or [seconds / steps])
    return structure, state, {"seconds": seconds, "step_milliseconds": milliseconds}


def _validate(
    settings: Settings,
    folder: RunFolder,
    display: ProgressDisplay,
    structure: Any,
    state: State,
    pixels: Pixels,
    sources: Sources,
    objective: Objective,
) -> None:
    """Log loss and accuracy on the validation images."""
    if len(sources.validation.labels) < 2:
        return
    encoder = Encoder(structure, state.params, state.statistics, pixels)
    encoded = encoder(sources.validation.images)
    line = {
        "step": int(state.step),
        "validation_loss": encoded.loss(objective, sources.validation.labels),
        "validation_accuracy": encoded.accuracy(objective, sources.validation.labels),
    }
    folder.log(line)
    display.update(line, 0.0)


class _InterruptFlag:
    """Turns Ctrl-C and SIGTERM into a flag that the loop reads at the next safe place; a second one stops at once."""

    def __init__(self) -> None:
        self.raised = False
        self._former: dict[int, Any] = {}

    def _raise(self, signum: int, frame: FrameType | None) -> None:
        self.raised = True
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def __enter__(self) -> "_InterruptFlag":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._raise)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
