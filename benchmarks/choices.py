"""The measurements behind choices that the code makes for speed: `python benchmarks/choices.py`.

Each row is one operation written in several ways, forward and backward where it is learned through, and then several
times in one compiled loop, as in training. The ways take turns within one run, after a warm-up; printed are medians in
milliseconds.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

if not __package__:  # as `python benchmarks/choices.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _steps
from simjax import core, nn
from simjax.attention import attention
from simjax.data import Augmentation, augment, permutation_at
from simjax.evaluate import retrieval_metrics
from simjax.evaluate._retrieval import _rank
from simjax.losses._angular import _angular_by_products, _angular_by_sums
from simjax.losses._pair_loss import softplus
from simjax.losses._triplet import _hinge_terms, _triplet_margin_terms
from simjax.pairs._triplets import all_negatives
from simjax.similarity import top_k
from simjax.train._settings import from_dict

LOOPS = 10  # in one compiled loop


class Way(NamedTuple):
    """One way to do an operation: `run` does it `times` times."""

    run: Callable[[], Any]
    times: int = 1


Ways = dict[str, Way]


def random(*shape: int) -> Array:
    """Normal numbers, always the same."""
    return jax.random.normal(jax.random.key(0), shape)


def learned(function: Callable[..., Array], *arguments: Array) -> Way:
    """Forward and backward for every argument, in a loop whose every turn needs the one before."""
    cotangent = random(*jax.eval_shape(function, *arguments).shape)

    def turn(_: Any, arguments: Any) -> Any:
        out, pullback = jax.vjp(function, *arguments)
        return jax.tree.map(lambda a, g: a + 1e-9 * g, arguments, pullback(cotangent + 1e-9 * out))

    compiled = jax.jit(lambda count, arguments: lax.fori_loop(0, count, turn, arguments))
    return Way(lambda: compiled(LOOPS, arguments), LOOPS)


def convolutions(images: int, side: int, channels: int, filters: int) -> Ways:
    """A 3x3 convolution by XLA alone, and in the loop by whole patches, by shifted images and as simjax has it."""

    def xla(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def patches(x: Array, kernel: Array) -> Array:
        return core.dense(core.patches(x, (3, 3), padding=1), kernel.reshape(-1, filters))

    def shifted(x: Array, kernel: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        places = [(i, j) for i in range(3) for j in range(3)]
        products = [core.dense(padded[:, i : i + side, j : j + side], kernel[i, j]) for i, j in places]
        return sum(products[1:], products[0])

    x, kernel = random(images, side, side, channels), random(3, 3, channels, filters)
    cotangent = random(images, side, side, filters)
    alone = jax.jit(lambda x, kernel: jax.vjp(xla, x, kernel)[1](cotangent))
    return {
        "XLA, no loop": Way(lambda: alone(x, kernel)),
        "patches": learned(patches, x, kernel),
        "shifted": learned(shifted, x, kernel),
        "simjax": learned(lambda x, k: core.convolution(x, k, padding=1), x, kernel),
    }


def depthwise_convolutions(images: int, side: int, channels: int, size: int, stride: int) -> Ways:
    """A filter for each channel, by XLA's convolution and as simjax has it."""

    def xla(x: Array, kernel: Array) -> Array:
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": channels}
        return lax.conv_general_dilated(x, kernel[:, :, None], (stride, stride), "SAME", **options)

    def simjax(x: Array, kernel: Array) -> Array:
        return core.depthwise_convolution(x, kernel, stride=stride)

    x, kernel = random(images, side, side, channels), random(size, size, channels)
    forward = {"XLA": jax.jit(xla), "simjax": jax.jit(simjax)}
    return {name: Way(functools.partial(function, x, kernel)) for name, function in forward.items()}


def poolings() -> Ways:
    """The maximum of 2x2 windows."""

    def windows(x: Array) -> Array:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def slices(x: Array) -> Array:
        return functools.reduce(jnp.maximum, [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])

    x = random(256, 28, 28, 32)
    return {"windows": learned(windows, x), "slices": learned(slices, x), "simjax": learned(nn.max_pool, x)}


def attentions(images: int, tokens: int, heads: int, size: int) -> Ways:
    """Self-attention of many short sequences, in the obvious form of two products and as simjax has it."""

    def plain(query: Array, key: Array, value: Array) -> Array:
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", query, key) / size**0.5)
        return jnp.einsum("bhts,bshd->bthd", weights, value)

    def ours(query: Array, key: Array, value: Array) -> Array:
        out = attention(query, key, value, temperature=size**0.5)
        assert isinstance(out, Array)
        return out

    parts = [random(images, tokens, heads, size) for _ in range(3)]
    return {"plain": learned(plain, *parts), "simjax": learned(ours, *parts)}


def input_pipelines(model: str) -> Ways:
    """A training step on images chosen among 60,000 and augmented, and on the same ones again and again."""
    settings = from_dict({"model": model, "dataset": "mnist"})

    def way(images: int, constant: bool) -> Way:
        steps, state, inputs = _steps.built(settings, *_steps.some_images(images), constant=constant)

        def run() -> Any:
            nonlocal state
            state = steps(state, LOOPS, *inputs)
            return state.params

        return Way(run, LOOPS)

    return {"constant images": way(settings.batch_size, True), "as trained": way(60_000, False)}


def augmentations(side: int, channels: int) -> Ways:
    """128 images, changed at random."""
    images, key = 255 * jnp.abs(random(128, side, side, channels)), jax.random.key(1)
    affine, shift = Augmentation(0.1, 10.0, 0.1), Augmentation(0.1)
    return {
        "affine": Way(lambda: augment(key, images, affine)),
        "shift": Way(lambda: augment(key, images, shift)),
    }


def rankings() -> Ways:
    """Every one of 10,000 images ranks the others as far as its class is large, about 1,000."""
    embeddings, labels = np.asarray(random(10_000, 64)), np.arange(10_000) % 10
    own = np.arange(10_000)
    return {
        "lax.top_k alone": Way(lambda: top_k(embeddings, embeddings, 999, exclude=own)),
        "simjax, metrics and all": Way(lambda: retrieval_metrics(embeddings, labels)),
    }


def sorts() -> Ways:
    """The closest of 10,000 columns for 200 rows, with and without columns packed into the sort keys."""
    values = np.asarray(random(200, 10_000))
    return {
        "stable argsort": Way(lambda: np.argsort(values, axis=1, kind="stable")[:, :999]),
        "simjax, 999 columns": Way(lambda: _rank(values, 999)),
        "simjax, all columns": Way(lambda: _rank(values, 10_000)),
    }


def shuffles(n: int) -> Ways:
    """The positions of a batch of 128 in a random permutation, of which each step computes only these."""

    def sort(key: Array, positions: Array) -> Array:
        return jax.random.permutation(key, n)[positions]

    def way(function: Callable[[Array, Array], Array]) -> Way:
        def batches(key: Array) -> Array:
            return lax.map(lambda step: function(key, (128 * step + jnp.arange(128)) % n), jnp.arange(LOOPS))

        compiled = jax.jit(batches)
        return Way(lambda: compiled(jax.random.key(0)), LOOPS)

    return {"sort": way(sort), "simjax": way(lambda key, positions: permutation_at(key, positions, n))}


def softpluses() -> Ways:
    """The smooth margin violation of many triplets."""
    x = random(1024, 1024)
    return {"jax.nn.softplus": learned(jax.nn.softplus, x), "simjax": learned(softplus, x)}


def angular_losses(classes: int, rows: int) -> Ways:
    """The angular loss of all triplets, by products of matrices and by one sum for each positive pair."""
    n = classes * rows
    labels = jnp.arange(n) % classes
    positive = (labels[:, None] == labels[None]) & ~jnp.eye(n, dtype=bool)
    negative = labels[:, None] != labels[None]
    zeros = jnp.zeros(n)
    y = random(n, 128)
    y = y / jnp.linalg.norm(y, axis=1, keepdims=True)

    def way(function: Callable[..., tuple[Array, Array]]) -> Way:
        def total(y: Array, positive: Array, negative: Array) -> Array:
            return jnp.sum(function((zeros, zeros), y @ y.T, positive, negative, y, jnp.array(0.7))[0])

        compiled = jax.jit(jax.value_and_grad(total))
        return Way(lambda: compiled(y, positive, negative))

    return {"by products": way(_angular_by_products), "by sums": way(_angular_by_sums)}


def triplet_losses(classes: int, rows: int) -> Ways:
    """The hinge of all triplets, by counts of the triplets of each pair and by a sum with its own backward loop."""
    n = classes * rows
    labels = jnp.arange(n) % classes
    positive = (labels[:, None] == labels[None]) & ~jnp.eye(n, dtype=bool)
    negative = labels[:, None] != labels[None]
    y = random(n, 128)
    y = y / jnp.linalg.norm(y, axis=1, keepdims=True)

    def way(terms: Callable[..., Any], **parameters: Any) -> Way:
        def total(y: Array, positive: Array, negative: Array) -> Array:
            pairs = positive, all_negatives(negative)
            return jnp.sum(terms(y @ y.T, *pairs, margin=jnp.array(0.05), **parameters)["triplet"].total)

        compiled = jax.jit(jax.value_and_grad(total))
        return Way(lambda: compiled(y, positive, negative))

    return {"by a sum": way(_triplet_margin_terms, smooth=False, measure=None), "by counts": way(_hinge_terms)}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="times that each way is taken (default 7)")
    runs = parser.parse_args().runs
    rows = {
        "convolution 256x28x28x1 to 32": convolutions(256, 28, 1, 32),
        "convolution 256x14x14x32 to 64": convolutions(256, 14, 32, 64),
        "convolution 128x14x14x64 to 64": convolutions(128, 14, 64, 64),
        "convolution 128x7x7x128 to 128": convolutions(128, 7, 128, 128),
        "depthwise convolution 16x56x56x144, 3x3": depthwise_convolutions(16, 56, 144, 3, 1),
        "depthwise convolution 16x112x112x96, 3x3, stride 2": depthwise_convolutions(16, 112, 96, 3, 2),
        "depthwise convolution 16x14x14x672, 5x5": depthwise_convolutions(16, 14, 672, 5, 1),
        "2x2 maximum of 256x28x28x32": poolings(),
        "attention 128x16, 4 heads of 16": attentions(128, 16, 4, 16),
        "attention 128x49, 4 heads of 32": attentions(128, 49, 4, 32),
        "step of the default CNN, 128x28x28x1": input_pipelines("cnn"),
        "step of the default ViT, 128x28x28x1": input_pipelines("vit"),
        "augmentation 128x28x28x1": augmentations(28, 1),
        "augmentation 128x32x32x3": augmentations(32, 3),
        "ranking 10,000 in 10,000": rankings(),
        "sort keys of 200 x 10,000": sorts(),
        "shuffle of 60,000": shuffles(60_000),
        "softplus of 1,024 x 1,024": softpluses(),
        "angular loss, 32 classes of 32": angular_losses(32, 32),
        "angular loss, 256 classes of 4": angular_losses(256, 4),
        "triplets, 16 classes of 64": triplet_losses(16, 64),
    }
    for title, ways in rows.items():
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs + 1):  # the first one compiles
            for name, way in ways.items():
                start = time.perf_counter()
                jax.block_until_ready(way.run())
                times[name].append(1000 * (time.perf_counter() - start) / way.times)
        cells = ", ".join(f"{name} {statistics.median(taken[1:]):.1f}" for name, taken in times.items())
        print(f"| {title} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
