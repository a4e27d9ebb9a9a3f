from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import Augmentation, load
from simjax.train._data import Normalization
from simjax.train._learner import build_learner
from simjax.train._objective import LossInputs, build_objective
from simjax.train._recipes import fill_defaults
from simjax.train._settings import from_dict
from simjax.train._step import build_optimizer, build_steps, initial_state
from tests.slow import mostly_slow


def prepared(**values) -> tuple[Any, ...]:
    settings = fill_defaults(from_dict({"batch_size": 16} | values), 64)
    data = load("digits", "train")
    images, labels = data.images[:64], data.labels[:64]
    learner = build_learner(settings, (8, 8, 1), 10)
    objective = build_objective(settings, labels, 10)
    optimizer, _ = build_optimizer(settings, 20)
    structure, state = initial_state(learner, optimizer, 0)
    steps = build_steps(structure, optimizer, objective, Augmentation(), settings.dtype)
    return steps, state, (jnp.asarray(images), jnp.asarray(labels), jnp.arange(64), Normalization.unit(1)), objective


@pytest.mark.parametrize("model", mostly_slow(["cnn", "vit", "dnn"], "vit"))
def test_steps_lower_the_loss_and_compile_once(model):
    steps, state, batch, _ = prepared(model=model, optimizer={"warmup": 0.0})
    losses = []
    for _ in range(12):
        state = steps(state, 1, *batch)
        losses.append(float(state.metrics.loss))
    each = np.diff([0.0, *losses])
    assert each[-3:].mean() < each[:3].mean()
    assert int(state.step) == int(state.metrics.steps) == 12
    assert steps._cache_size() == 1
    assert int(state.metrics.first_nonfinite_step) == -1


@pytest.mark.parametrize("model", mostly_slow(["cnn", "vit", "dnn"], "dnn"))
@pytest.mark.slow
def test_half_precision_learns_the_same_in_float32_parameters(model):
    losses = []
    for dtype in ("float32", "bfloat16"):
        small = {"cnn": {"widths": [8]}, "vit": {"depth": 1}}
        steps, state, batch, _ = prepared(model=model, dtype=dtype, optimizer={"warmup": 0.0}, **small)
        state = steps(state, 8, *batch)
        assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.statistics))} == {jnp.dtype("float32")}
        losses.append(float(state.metrics.loss))
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_a_step_is_a_function_of_its_state():
    steps, state, batch, _ = prepared(model="dnn")
    copy = jax.tree.map(lambda a: a.copy(), state)
    a, b = steps(state, 2, *batch), steps(copy, 2, *batch)
    jax.tree.map(np.testing.assert_array_equal, jax.random.key_data(a.key), jax.random.key_data(b.key))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


@pytest.mark.slow
def test_the_division_of_steps_into_calls_changes_no_bit():
    steps, state, batch, _ = prepared(model="cnn", objective="contrastive")
    copy = jax.tree.map(lambda a: a.copy(), state)
    for count in (1, 4, 2):
        state = steps(state, count, *batch)
    whole = steps(copy, 7, *batch)
    jax.tree.map(np.testing.assert_array_equal, whole.params, state.params)
    assert whole.metrics == state.metrics
    assert steps._cache_size() == 1


def test_steps_in_separate_programs_equal_steps_in_one_program(monkeypatch):
    steps, state, batch, _ = prepared(model="dnn")
    expected = steps(jax.tree.map(lambda a: a.copy(), state), 3, *batch)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    steps, _, _, _ = prepared(model="dnn")
    one_by_one = steps(state, 3, *batch)
    assert int(one_by_one.step) == 3
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one_by_one.params, expected.params)


def test_the_first_step_that_is_not_finite_is_remembered():
    steps, state, batch, _ = prepared(model="dnn", optimizer={"learning_rate": 1e30, "warmup": 0.0, "clip_norm": 0.0})
    state = steps(state, 6, *batch)
    first = int(state.metrics.first_nonfinite_step)
    assert 0 < first < 6


def test_only_kernels_decay():
    settings = {"model": "vit", "optimizer": {"weight_decay": 0.5, "warmup": 0.0}, "vit": {"positions": "learned"}}
    _, state, _, _ = prepared(**settings)
    from simjax.train._step import decay_mask

    mask = decay_mask(state.params)
    named = {jax.tree_util.keystr(path): flag for path, flag in jax.tree_util.tree_leaves_with_path(mask)}
    decayed = {name for name, flag in named.items() if flag}
    assert decayed == {name for name in named if "kernel" in name}
    assert len(decayed) == 2 + 1 + 4 * 4  # patches, embedding, head, and four in each of four blocks


def test_random_pairs_have_the_contrastive_loss():
    loss = {"pairs": "random", "margin": 2.0, "variant": "hadsell", "normalize": False}
    values = {"model": "cnn", "objective": "contrastive", "loss": loss}
    _, _, _, objective = prepared(**values)
    embeddings = jnp.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [0.5, 0.0]])  # pairs: rows 0, 2 and rows 1, 3
    labels, key = jnp.array([1, 1, 1, 2]), jax.random.key(0)
    loss, _ = objective.loss(LossInputs(embeddings, labels, None, {}, key, jnp.int32(0)))
    np.testing.assert_allclose(loss, (25.0 + 1.5**2) / 2)
    assert objective.images == 32


def test_a_shuffled_batch_is_the_next_part_of_the_order():
    _, _, (_, _, order, _), o = prepared(objective="contrastive", loss={"batches": "shuffled"})
    rows = o.sample(jax.random.key(0), jnp.int32(1), order)
    np.testing.assert_array_equal(rows, order[o.images : 2 * o.images])


@pytest.mark.parametrize("objective", ["contrastive", "triplet"])
def test_a_batch_has_m_images_of_each_class(objective):
    _, _, (_, labels, order, _), o = prepared(objective=objective, loss={"samples_per_class": 4})
    rows = o.sample(jax.random.key(0), jnp.int32(0), order)
    classes, counts = np.unique(labels[rows], return_counts=True)
    assert o.images == 16
    np.testing.assert_array_equal(counts, [4] * 4)
    assert len(classes) == 4


def test_an_epoch_sees_every_image_once():
    _, _, (_, _, order, _), o = prepared(model="dnn")
    seen = np.concatenate([o.sample(jax.random.key(0), jnp.int32(s), order) for s in range(o.steps_per_epoch)])
    np.testing.assert_array_equal(np.sort(seen), np.arange(64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 6}, "a batch of 6 cannot hold 4 images of 2 classes"),
        ({"loss": {"samples_per_class": 9}}, "batch of 16 cannot hold 9 images of 2 classes each, give at most 8"),
    ],
)
def test_a_batch_too_small_for_m_images_per_class_is_rejected(values, message):
    with pytest.raises(InputError, match=message):
        prepared(objective="triplet", **values)
