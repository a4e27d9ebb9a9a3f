"""Time of training until a test accuracy is reached, simjax against PyTorch: `python -m benchmarks.time_to_accuracy`.

The default CNN and ViT of this project on MNIST, with the same first parameters, recipe and augmentation on both
sides. After each epoch the test images are classified, with the clock stopped; time counts from the first step and
holds the compilation. The two sides take turns, epoch by epoch. PyTorch runs channels last, with its fused optimiser.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/time_to_accuracy.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

TARGETS = {"cnn": 0.99, "vit": 0.98}

Epochs = Iterator[tuple[float, float]]
"""Of each epoch: the seconds of training so far, and the test accuracy."""


def prepared(model: str, seed: int) -> tuple[Any, ...]:
    """Completed settings, images, objective and fresh learner, as `simjax.train.train` makes them."""
    from simjax.train._data import load_splits
    from simjax.train._learner import build_learner
    from simjax.train._objective import build_objective
    from simjax.train._recipes import fill_defaults
    from simjax.train._settings import from_dict

    settings = from_dict({"model": model, "dataset": "mnist", "seed": seed})
    sources = load_splits(settings)
    settings = fill_defaults(settings, len(sources.train.labels))
    learner = build_learner(settings, sources.train.images.shape[1:], 10)
    return settings, sources, build_objective(settings, sources.train.labels, 10), learner


def ours(model: str, seed: int) -> Epochs:
    """simjax, in calls of as many steps as training takes."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from simjax.data import epoch_order
    from simjax.train._data import build_normalization
    from simjax.train._learner import encode, encoder_config, encoder_of
    from simjax.train._loop import LOG_STEPS, StepsPerCall
    from simjax.train._step import build_augmentation, build_optimizer, build_steps, initial_state

    settings, sources, objective, learner = prepared(model, seed)
    each = objective.steps_per_epoch
    optimizer, _ = build_optimizer(settings, round(settings.epochs * each))
    graphdef, state = initial_state(learner, optimizer, seed)
    pixels = build_normalization(settings, sources)
    images, labels = jnp.asarray(sources.train.images), jnp.asarray(sources.train.labels)
    steps = build_steps(graphdef, optimizer, objective, build_augmentation(settings), settings.dtype)
    pace, seconds = StepsPerCall(), 0.0
    for epoch in range(round(settings.epochs)):
        order, done = epoch_order(jax.random.key(epoch), len(labels)), 0
        start = time.perf_counter()
        while done < each:
            count = min(pace.steps, LOG_STEPS, each - done)
            with pace.measured(count):
                state = jax.block_until_ready(steps(state, count, images, labels, order, pixels))
            done += count
        seconds += time.perf_counter() - start
        trained = nnx.merge(graphdef, state.params, state.statistics, copy=True)
        encoder = encoder_of(trained, encoder_config(settings, sources, pixels, objective.measure.name))
        logits = encode(encoder, trained, sources.test.images).logits
        assert logits is not None
        yield seconds, float(np.mean(logits.argmax(1) == sources.test.labels))


def theirs(model: str, seed: int) -> Epochs:
    """PyTorch."""
    import math

    import numpy as np
    import torch
    from torch.nn import functional as F

    from benchmarks._torch import decayed, same_network
    from simjax.train._data import build_normalization
    from simjax.train._step import build_optimizer

    torch.manual_seed(seed)
    settings, sources, objective, learner = prepared(model, seed)
    each, size, o = objective.steps_per_epoch, settings.batch_size, settings.optimizer
    _, schedule = build_optimizer(settings, round(settings.epochs * each))
    rates = [float(np.asarray(schedule(i))) for i in range(round(settings.epochs * each))]
    network = torch.nn.Sequential(same_network(learner.encoder), same_network(learner.head.dense))
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decayed(network, o.weight_decay), lr=o.learning_rate, fused=True)
    pixels = build_normalization(settings, sources)
    mean, std = float(pixels.mean[0]), float(pixels.std[0])
    images, labels = torch.tensor(sources.train.images).permute(0, 3, 1, 2), torch.tensor(sources.train.labels).long()
    test = torch.tensor(sources.test.images).permute(0, 3, 1, 2)

    def augmented(x: torch.Tensor) -> torch.Tensor:
        a = settings.augment
        angle = math.radians(a.rotation) * (2 * torch.rand(len(x)) - 1)
        scale = 1 / (1 + a.scale * (2 * torch.rand(len(x)) - 1))
        shift = 2 * a.shift * (2 * torch.rand(len(x), 2) - 1)  # half an image is 1
        cos, sin = scale * angle.cos(), scale * angle.sin()
        rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def normalized(x: torch.Tensor) -> torch.Tensor:
        return ((x.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    seconds, step = 0.0, 0
    for _ in range(round(settings.epochs)):
        network.train()
        start = time.perf_counter()
        order = torch.randperm(len(images))
        for i in range(each):
            rows = order[i * size : (i + 1) * size]
            for group in optimizer.param_groups:
                group["lr"] = rates[step]
            out = network(normalized(augmented(images[rows].float())))
            loss = F.cross_entropy(out, labels[rows], label_smoothing=settings.loss.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            if o.clip_norm:
                torch.nn.utils.clip_grad_norm_(network.parameters(), o.clip_norm)
            optimizer.step()
            step += 1
        seconds += time.perf_counter() - start
        network.eval()
        with torch.no_grad():
            logits = torch.cat([network(normalized(part)) for part in test.split(256)])
        yield seconds, float(np.mean(logits.argmax(1).numpy() == sources.test.labels))


def race(model: str, seed: int) -> dict[str, Any]:
    """Both until they reach the target, taking turns epoch by epoch; the seconds of each, None if it never did."""
    sides: dict[str, Epochs] = {"simjax": ours(model, seed), "PyTorch": theirs(model, seed)}
    reached: dict[str, float | None] = dict.fromkeys(sides)
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    while sides:
        for name in list(sides):
            epoch = next(sides[name], None)
            if epoch is not None:
                curves[name].append(epoch)
            if epoch is not None and epoch[1] >= TARGETS[model]:
                reached[name] = epoch[0]
            if epoch is None or reached[name] is not None:
                del sides[name]
    return {"model": model, "seed": seed, "reached": reached, "curves": curves}


def main() -> int:
    """Run, and print one line for each model and seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_to_accuracy", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: both")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the curves here")
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    races = []
    for model in options.models:
        ratios = []
        for seed in options.seeds:
            races.append(race(model, seed))
            seconds = races[-1]["reached"]
            curves = races[-1]["curves"]
            took = {name: curve[-1][0] / len(curve) for name, curve in curves.items()}
            reached = {name: "never" if s is None else f"{s:.1f} s" for name, s in seconds.items()}
            told = ", ".join(f"{name} {reached[name]} ({took[name]:.1f} s an epoch)" for name in seconds)
            print(f"{model} to {TARGETS[model]:.1%}, seed {seed}: {told}", flush=True)
            if options.json:  # a race takes minutes: what is measured stays
                options.json.write_text(json.dumps(races, indent=1) + "\n")
            if None not in seconds.values():
                ratios.append(seconds["simjax"] / seconds["PyTorch"])
        if ratios:
            print(f"{model}: {statistics.median(ratios):.2f} times PyTorch's time, median of {len(ratios)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
