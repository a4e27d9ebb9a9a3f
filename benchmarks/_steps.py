"""One training step, as `train.py` takes it and as PyTorch does: forward, backward and the optimiser's update.

Every step sees the same images, so that no input pipeline is timed, and the losses of the first steps must agree.
simjax takes as many steps in one call as in training; each begins with another image of the circle, so that nothing is
the same for all and could be computed once.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._timing import OURS, Contest, NotPossible, Ready
from simjax.train._settings import Settings, from_dict, load_toml

CLASSIC = Path(__file__).parents[1] / "configs" / "classic_siamese_margin1.toml"
FIRST_STEPS = 3  # whose losses are compared
CLASSES = 10
FORMS = {
    "PyTorch": {"best_layout": False, "compiled": False},
    "PyTorch, channels last": {"best_layout": True, "compiled": False},
    "PyTorch, compiled": {"best_layout": True, "compiled": True},
}


def networks() -> dict[str, Settings]:
    """What is trained."""
    constant = {"clip_norm": 0.0, "warmup": 0.0, "schedule": "constant"}
    plain: dict[str, Any] = {"dataset": "mnist", "augment": {"enabled": False}, "optimizer": constant}
    vit = {"patch_size": 4, "width": 128, "depth": 6, "heads": 4, "mlp_ratio": 4}
    return {
        "siamese_cnn": load_toml(CLASSIC),
        "vit": from_dict({"model": "vit", "vit": vit} | plain),
        "dnn": from_dict({"model": "dnn"} | plain),
        "default_cnn": from_dict({"model": "cnn"} | plain),
        "default_vit": from_dict({"model": "vit"} | plain),
    }


def contests(names: Any, *, small: bool = False) -> Iterator[Contest]:
    """A contest for each network."""
    for name in names:
        settings = networks()[name]
        batch = 8 if small else settings.batch_size
        images = images_in(settings, batch)
        what = f"{batch} pairs" if settings.objective == "contrastive" else f"{batch} images"
        yield Contest(
            case="step",
            name=name,
            size=f"{what} of 28x28x1",
            inputs=lambda images=images: some_images(images),
            contenders={
                OURS: lambda x, y, settings=settings: ours(settings, x, y),
                **{
                    form: lambda x, y, settings=settings, how=how: theirs(settings, x, y, **how)
                    for form, how in FORMS.items()
                },
            },
            agreement="largest difference",
        )


def images_in(settings: Settings, batch: int) -> int:
    """How many images a batch has."""
    return 2 * batch if settings.objective == "contrastive" else batch


def some_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 28, 28, 1] and labels [n]."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (n, 28, 28, 1), np.uint8), random.integers(0, CLASSES, n, np.int32)


def built(settings: Settings, images: np.ndarray, labels: np.ndarray, *, constant: bool = True) -> tuple[Any, ...]:
    """Several steps of `simjax.train` as one function that is not compiled yet, the first state, and further inputs.

    Args:
        settings: what is trained.
        images: uint8 [n, h, w, c].
        labels: [n].
        constant: every step sees all images as they are, not some that are chosen and augmented.
    """
    import jax.numpy as jnp

    from simjax.data import Augmentation
    from simjax.train._data import Normalization
    from simjax.train._learner import build_learner
    from simjax.train._objective import build_objective
    from simjax.train._recipes import fill_defaults
    from simjax.train._step import build_augmentation, build_optimizer, build_steps, initial_state

    settings = fill_defaults(settings, len(images))
    objective = build_objective(settings, labels, CLASSES)
    augmentation = Augmentation() if constant else build_augmentation(settings)
    if constant:
        objective = objective._replace(sample=lambda key, step, order: jnp.roll(order, step))
    optimizer, _ = build_optimizer(settings, 1)
    graphdef, state = initial_state(build_learner(settings, images.shape[1:], CLASSES), optimizer, settings.seed)
    inputs = (jnp.asarray(images), jnp.asarray(labels), jnp.arange(len(images)), Normalization.unit(1))
    return build_steps(graphdef, optimizer, objective, augmentation, settings.dtype), state, inputs


def ours(settings: Settings, images: np.ndarray, labels: np.ndarray) -> Ready:
    """The compiled steps of `simjax.train`."""
    import jax

    from simjax.train._loop import LOG_STEPS, StepsPerCall

    steps, state, inputs = built(settings, images, labels)
    start = time.perf_counter()
    steps = steps.lower(state, 1, *inputs).compile()
    compiling = time.perf_counter() - start
    total, pace = [0.0], StepsPerCall()
    for _ in range(FIRST_STEPS):
        with pace.measured(1):
            state = steps(state, 1, *inputs)
            total.append(float(state.metrics.loss))

    def run(count: int) -> np.ndarray:
        nonlocal state
        with pace.measured(count):
            state = jax.block_until_ready(steps(state, count, *inputs))
        return np.diff(total)

    for _ in range(2):  # the more steps in a call, the faster is each of them: the pace settles
        run(min(pace.steps, LOG_STEPS))
    count = min(pace.steps, LOG_STEPS)
    return Ready(lambda: run(count), compiling, steps.memory_analysis().temp_size_in_bytes, count)


def theirs(settings: Settings, images: np.ndarray, labels: np.ndarray, *, best_layout: bool, compiled: bool) -> Ready:
    """The same in PyTorch: the same parameters, loss and optimiser; the best layout is channels last, AdamW fused."""
    import shutil

    import torch
    from torch.nn import functional as F

    from benchmarks._torch import decayed, same_network
    from simjax.train._learner import build_learner
    from simjax.train._recipes import fill_defaults

    if compiled and not (shutil.which("c++") or shutil.which("g++")):
        raise NotPossible("torch.compile needs a C++ compiler")
    settings = fill_defaults(settings, len(images))
    learner = build_learner(settings, images.shape[1:], CLASSES)
    network = same_network(learner.encoder)
    head: Any = learner.head
    if head is not None:
        network = torch.nn.Sequential(network, same_network(head.dense))
    if best_layout:
        network = network.to(memory_format=torch.channels_last)
    assert settings.optimizer.weight_decay is not None  # of the filled settings
    optimizer = torch.optim.AdamW(
        decayed(network, settings.optimizer.weight_decay), lr=settings.optimizer.learning_rate, fused=best_layout
    )
    x = torch.tensor(images).permute(0, 3, 1, 2)  # as [b, h, w, 1] it has both layouts
    y = torch.tensor(labels, dtype=torch.long)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.float() / 255
        if best_layout:
            x = x.contiguous(memory_format=torch.channels_last)
        out = network(x)
        if learner.head is not None:
            return F.cross_entropy(out, y, label_smoothing=settings.loss.label_smoothing)
        half = len(out) // 2
        distance = torch.linalg.vector_norm(out[:half] - out[half:], dim=1)
        return torch.where(y[:half] == y[half:], distance, F.relu(settings.loss.margin - distance)).square().mean()

    loss = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        optimizer.zero_grad()
        value = loss(x, y)
        value.backward()
        optimizer.step()
        return value.item()

    start = time.perf_counter()
    first = [step()]
    compiling = time.perf_counter() - start if compiled else None
    first += [step() for _ in range(FIRST_STEPS - 1)]

    def run() -> np.ndarray:
        step()
        return np.array(first)

    return Ready(run, compiling)
