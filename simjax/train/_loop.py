"""The training loop: compiled steps, a log, validation, checkpoints, and a safe stop on Ctrl-C."""

import functools
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from simjax.core import InputError
from simjax.data import epoch_order
from simjax.encoder import Encoder, EncoderConfig
from simjax.train._batch_losses import validation_scores
from simjax.train._checkpoint import Checkpoints
from simjax.train._collapse import describe_collapse
from simjax.train._data import DataSplits, Normalization
from simjax.train._learner import Learner, encode, encoder_of
from simjax.train._objective import Objective
from simjax.train._progress import ProgressDisplay, print_line
from simjax.train._run_folder import RunFolder
from simjax.train._settings import Settings
from simjax.train._step import Metrics, State, build_augmentation, build_optimizer, build_steps, initial_state
from simjax.train._tensorboard import event_file

LOG_LINES = 50  # minimum number of log lines of one training, if it has as many steps
LOG_STEPS = 100  # maximum number of steps between two log lines, so that a long training shows progress
VALIDATIONS = 10  # approximate number of validations of one training
CALL_SECONDS = 3.0  # approximate time of a call of several steps; Ctrl-C is handled between calls


class Interrupted(Exception):
    """Training was stopped by a signal after saving a checkpoint.

    Attributes:
        step: Steps taken by the run, including those of its earlier trainings.
        folder: Folder of the run, from which it can be resumed.
    """

    def __init__(self, step: int, folder: Path):
        super().__init__(f"stopped at step {step:,}; {folder} can be resumed")
        self.step, self.folder = step, folder


class Training(NamedTuple):
    """Inputs of one training. A run has several trainings if it trains an ensemble."""

    settings: Settings  # defaults are filled in
    splits: DataSplits
    learner: Learner  # the network and all else that is trained, with initial parameters
    objective: Objective  # loss, batches and number of steps
    normalization: Normalization
    encoder_config: EncoderConfig
    name: str = ""  # subfolder for checkpoints, if the run has several trainings
    previous_steps: int = 0  # total steps of the earlier trainings of the run, added to the steps in the log


class FitResult(NamedTuple):
    """Result of one training."""

    learner: Learner
    encoder: Encoder  # the part of the learner that computes embeddings, with preprocessing and measure
    steps: int
    seconds: float  # training time, including the time before the training was interrupted and resumed
    images_per_second: float | None  # median over the log lines, or None without a readable log


def fit(training: Training, folder: RunFolder, *, resume: bool) -> FitResult:
    """Train until the last step. With `resume`, continue from the newest checkpoint if there is one.

    Raises:
        InputError: If a loss or gradient is not finite, or a checkpoint cannot be saved. Earlier checkpoints remain.
        Interrupted: On Ctrl-C or SIGTERM, after saving a checkpoint.
    """
    settings, splits, learner, objective, normalization, config, name, previous_steps = training
    optimizer, schedule = build_optimizer(settings, objective.steps)
    graphdef, state = initial_state(learner, optimizer, settings.seed)
    take_steps = build_steps(graphdef, optimizer, objective, build_augmentation(settings), settings.dtype)
    images, labels = jax.device_put((splits.train.images, splits.train.labels))
    checkpoints, seconds_before_resume = Checkpoints(folder.checkpoints / name), 0.0
    if resume and (restored := checkpoints.restore(state)) is not None:
        state, seconds_before_resume = restored
        print_line(f"resumed at step {int(state.step):,} of {objective.steps:,}")
    step, steps = int(state.step), objective.steps
    if step < steps:
        folder.truncate_metrics(previous_steps + step)  # the steps after the checkpoint are taken and logged again

    @functools.lru_cache(maxsize=1)
    def order_of(epoch: int) -> jax.Array:
        """Return the indices of the training images in the random order of an epoch, [n]."""
        key = jax.random.fold_in(jax.random.key(settings.seed + 1), epoch)  # not the key of the initial state
        return epoch_order(key, len(labels))

    def learner_with(state: State) -> Learner:
        return nnx.merge(graphdef, state.params, state.statistics, copy=True)

    log_every = max(1, min(steps // LOG_LINES, LOG_STEPS))
    validate_every = log_every * max(1, steps // VALIDATIONS // log_every)
    events: AbstractContextManager[Callable[[Mapping[str, Any]], None]] = nullcontext(lambda line: None)
    if settings.tensorboard:
        events = event_file(folder.tensorboard, folder.lines(previous_steps + step))
    with closing(checkpoints), StopSignal() as stop, ProgressDisplay(steps, step) as display, events as write_event:
        timer, per_call = Timer(step, seconds_before_resume), StepsPerCall()
        log = Logger(training, folder, display, schedule, timer, write_event)
        while step < steps:
            # A call of `take_steps` ends at the next log line, or at the end of the epoch whose order it gets.
            epoch, step_of_epoch = divmod(step, objective.steps_per_epoch)
            until_log = log_every - step % log_every
            count = min(per_call.steps, objective.steps_per_epoch - step_of_epoch, until_log, steps - step)
            with per_call.measured(count):
                state = take_steps(state, count, images, labels, order_of(epoch), normalization)
                state = jax.block_until_ready(state)
            step += count

            is_last, is_log_step = step == steps, step % log_every == 0 or step == steps
            if not is_log_step and not stop.requested:
                continue
            if (nonfinite_step := int(state.metrics.first_nonfinite_step)) >= 0:  # counted from 0; -1 if there is none
                raise InputError(
                    f"loss or gradient is not finite at step {nonfinite_step + 1}; the last good checkpoint is kept in "
                    f"{folder.checkpoints}; a lower `optimizer.learning_rate` may help"
                )
            if is_log_step:
                state = log.write_training_line(step, state)
            if is_log_step and (step % validate_every == 0 or is_last):
                log.write_validation_line(step, learner_with(state))
            if is_last or stop.requested or checkpoints.seconds_since_save() >= settings.checkpoint_seconds:
                checkpoints.save(state, timer.seconds())
            timer.exclude_pause()
            if stop.requested:
                raise Interrupted(previous_steps + step, folder.path)

    speed = folder.images_per_second(previous_steps, previous_steps + steps)
    learner = learner_with(state)
    return FitResult(learner, encoder_of(learner, config), steps, timer.seconds(), speed)


class Logger:
    """Writes lines of metrics.jsonl, also as events with `write_event`, and shows them on the terminal."""

    def __init__(
        self,
        training: Training,
        folder: RunFolder,
        display: ProgressDisplay,
        schedule: optax.Schedule,
        timer: "Timer",
        write_event: Callable[[Mapping[str, Any]], None],
    ):
        self._training, self._folder, self._display = training, folder, display
        self._schedule, self._timer, self._has_warned = jax.jit(schedule), timer, False
        self._write_event = write_event

    def write_training_line(self, step: int, state: State) -> State:
        """Log the metrics of the steps since the last log line, and return the state with metrics of zero."""
        objective, timer = self._training.objective, self._timer
        metrics: Metrics = jax.device_get(state.metrics)
        line = {"epoch": step / objective.steps_per_epoch} | metrics.means(objective)
        line |= timer.lap(step, objective.images_per_step)
        line["learning_rate"] = np.asarray(self._schedule(step - 1)).item()
        self._write(step, line)
        self._display.show_training({"step": step} | line, timer.seconds_left(step, objective.steps))
        return state._replace(metrics=Metrics.zeros())

    def write_validation_line(self, step: int, learner: Learner) -> None:
        """Log the scores of two or more validation images, and warn once if their embeddings collapse."""
        splits, objective = self._training.splits, self._training.objective
        images, labels = splits.validation.images, splits.validation.labels
        if len(labels) > 1:
            encoder = encoder_of(learner, self._training.encoder_config)
            encoded = encode(encoder, learner, images)
            known_classes = splits.known_validation_classes  # training images have the classes of validation images
            line = validation_scores(encoded, objective, labels, encoder.measure, known_classes=known_classes)
            self._write(step, line)
            self._display.show_validation({"step": step} | line)
            is_late = 2 * step >= objective.steps  # embeddings may be nearly equal before an encoder has learned
            description = describe_collapse(line, encoded.embeddings, len(np.unique(labels)))
            if is_late and not self._has_warned and description is not None:
                self._has_warned = True
                warnings.warn(f"validation images, step {step:,}: {description}", stacklevel=2)

    def _write(self, step: int, line: dict[str, Any]) -> None:
        line = {"step": self._training.previous_steps + step} | line
        self._folder.log(line)
        self._write_event(line)


class Timer:
    """Measures the total training time, and the time per step without logging, validation and checkpoints."""

    def __init__(self, step: int, seconds_before_resume: float):
        self._seconds_before_resume = seconds_before_resume
        self._start = self._lap_start = time.perf_counter()
        self._first_step = self._lap_step = step

    def seconds(self) -> float:
        """Return the training time, including the time before the training was resumed."""
        return self._seconds_before_resume + time.perf_counter() - self._start

    def lap(self, step: int, images_per_step: int) -> dict[str, float]:
        """Return the speed since the last log line and the training time, for the log line of this step."""
        seconds_per_step = (time.perf_counter() - self._lap_start) / (step - self._lap_step)
        self._lap_step = step
        return {"images_per_second": images_per_step / seconds_per_step, "seconds": self.seconds()}

    def exclude_pause(self) -> None:
        """Exclude the time since the last call of `lap` from the next lap."""
        self._lap_start = time.perf_counter()

    def seconds_left(self, step: int, steps: int) -> float:
        """Return the estimated time of the remaining steps."""
        seconds_per_step = (time.perf_counter() - self._start) / max(step - self._first_step, 1)
        return seconds_per_step * (steps - step)


class StepsPerCall:
    """Chooses the number of steps per call of the compiled function, so that a call takes about `CALL_SECONDS`."""

    def __init__(self) -> None:
        self.steps = 1

    @contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Measure a call of `count` steps and set `steps` for the next call."""
        start = time.perf_counter()
        yield
        self.steps = max(1, int(CALL_SECONDS * count / (time.perf_counter() - start)))


class StopSignal:
    """Context manager in which the first Ctrl-C or SIGTERM only sets `requested`; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
