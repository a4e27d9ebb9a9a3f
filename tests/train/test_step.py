"""Compiled training steps of small models on the embedded digits."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax.core import InputError
from simjax.data import Augmentation, load
from simjax.train._data import Normalization, build_batches
from simjax.train._learner import build_learner
from simjax.train._objective import LossInputs, build_objective
from simjax.train._recipes import fill_defaults
from simjax.train._settings import Settings, from_dict
from simjax.train._step import State, StepsFunction, build_optimizer, build_steps, decay_mask, initial_state

pytestmark = pytest.mark.usefixtures("compile_faster")

SMALL = {"batch_size": 16, "cnn": {"widths": [8, 8]}, "vit": {"depth": 1, "width": 16}, "dnn": {"widths": [32]}}
KEY = jax.random.key(0)
ORDER = np.random.default_rng(0).permutation(64).astype(np.int32)
LABELS = load("digits", "train").labels[:64]


def settings_of(**values: Any) -> Settings:
    return fill_defaults(from_dict(SMALL | values), 64)


def build(**values: Any) -> tuple[StepsFunction, State, tuple[Any, ...]]:
    """Return compiled steps without warm-up and augmentation, the first state, and the other inputs of the steps."""
    settings = settings_of(optimizer={"warmup": 0.0}, **values)
    optimizer, _ = build_optimizer(settings, 20)
    graphdef, state = initial_state(build_learner(settings, (8, 8, 1), 10), optimizer, settings.seed)
    steps = build_steps(graphdef, optimizer, build_objective(settings, LABELS, 10), Augmentation(), settings.dtype)
    images = load("digits", "train").images[:64]
    return steps, state, (images, LABELS, ORDER, Normalization.unit(1))


def copied(state: State) -> State:
    return jax.jit(lambda state: jax.tree.map(jnp.copy, state))(state)


@pytest.fixture(scope="module")
def dense() -> tuple[StepsFunction, State, tuple[Any, ...]]:
    """The dense network; a test copies the state, because the steps donate its buffers."""
    return build(model="dnn")


def check_learning(steps: StepsFunction, state: State, batch: tuple[Any, ...]) -> State:
    losses = []
    for _ in range(12):
        state = steps(state, 1, *batch)
        losses.append(float(state.metrics.loss))
    each = np.diff([0.0, *losses])
    assert each[-3:].mean() < each[:3].mean()
    assert int(state.step) == int(state.metrics.steps) == 12
    assert int(state.metrics.first_nonfinite_step) == -1
    return state


def test_steps_lower_the_loss_and_compile_once(dense):
    steps, state, batch = dense
    check_learning(steps, copied(state), batch)
    assert steps._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "vit", "dnn", "logistic"])
def test_half_precision_learns_the_same_in_float32_parameters(model):
    losses = []
    for dtype in ("float32", "bfloat16"):
        state = check_learning(*build(model=model, dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.statistics))} == {jnp.dtype("float32")}
        losses.append(float(state.metrics.loss))
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_steps_are_a_function_of_their_state_and_their_division_into_calls_changes_no_bit(dense):
    steps, state, batch = dense
    in_parts = copied(state)
    for count in (1, 4, 2):
        in_parts = steps(in_parts, count, *batch)
    whole = steps(copied(state), 7, *batch)
    assert (jax.random.key_data(in_parts.key) == jax.random.key_data(whole.key)).all()
    jax.tree.map(np.testing.assert_array_equal, in_parts.params, whole.params)
    assert in_parts.metrics == whole.metrics


@pytest.mark.slow
def test_steps_in_separate_programs_equal_steps_in_one_program(dense, monkeypatch):
    steps, state, batch = dense
    expected = steps(copied(state), 3, *batch)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    one_by_one = build(model="dnn")[0](copied(state), 3, *batch)
    assert int(one_by_one.step) == 3
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one_by_one.params, expected.params)


def test_the_first_step_that_is_not_finite_is_remembered(dense):
    steps, state, (images, labels, order, normalization) = dense
    state = steps(copied(state), 2, images, labels, order, normalization)
    state = steps(state, 2, images, labels, order, normalization._replace(std=0 * np.asarray(normalization.std)))
    assert int(state.metrics.first_nonfinite_step) == 2
    assert int(steps(state, 2, images, labels, order, normalization).metrics.first_nonfinite_step) == 2


def test_only_kernels_decay():
    learner = build_learner(settings_of(model="vit", vit={"depth": 2, "positions": "learned"}), (8, 8, 1), 10)
    mask = decay_mask(nnx.state(learner, nnx.Param))
    named = {jax.tree_util.keystr(path): flag for path, flag in jax.tree_util.tree_leaves_with_path(mask)}
    decayed = {name for name, flag in named.items() if flag}
    assert decayed == {name for name in named if "kernel" in name}
    assert len(decayed) == 2 + 1 + 4 * 2  # patches, embedding, head, and four in each of two blocks


def test_random_pairs_have_the_contrastive_loss():
    options = {"pairs": "random", "margin": 2.0, "variant": "hadsell", "normalize": False}
    objective = build_objective(settings_of(objective="contrastive", loss=options), LABELS, 10)
    embeddings = np.array([[0, 0], [0, 0], [3, 4], [0.5, 0]], np.float32)  # pairs: rows 0, 2 and rows 1, 3
    arrays: list[Any] = [embeddings, np.array([1, 1, 1, 2]), None, {}, KEY, 0]
    loss = jax.jit(lambda: objective.loss(LossInputs(*arrays))[0])()
    np.testing.assert_allclose(loss, (25.0 + 1.5**2) / 2)
    assert objective.images_per_step == 32


def test_a_shuffled_batch_is_the_next_part_of_the_order():
    settings = settings_of(objective="contrastive", loss={"batches": "shuffled"})
    images, _, sample = build_batches(settings, LABELS, 10)
    np.testing.assert_array_equal(jax.jit(sample)(KEY, 1, ORDER), ORDER[images : 2 * images])


@pytest.mark.parametrize("objective", ["contrastive", "triplet"])
def test_a_batch_has_m_images_of_each_class(objective):
    images, _, sample = build_batches(settings_of(objective=objective, loss={"samples_per_class": 4}), LABELS, 10)
    rows = np.asarray(jax.jit(sample)(KEY, 0, ORDER))
    classes, counts = np.unique(LABELS[rows], return_counts=True)
    assert images == 16
    np.testing.assert_array_equal(counts, [4] * 4)
    assert len(classes) == 4


def test_an_epoch_has_every_image_once():
    _, steps, sample = build_batches(settings_of(), LABELS, 10)
    seen = jax.jit(jax.vmap(lambda step: sample(KEY, step, jnp.asarray(ORDER))))(np.arange(steps))
    np.testing.assert_array_equal(np.sort(seen.ravel()), np.arange(64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 6}, "a batch of 6 cannot hold 4 images of 2 classes"),
        ({"loss": {"samples_per_class": 9}}, "batch of 16 cannot hold 9 images of 2 classes each, give at most 8"),
    ],
)
def test_a_batch_too_small_for_m_images_per_class_is_rejected(values, message):
    with pytest.raises(InputError, match=message):
        build_batches(settings_of(objective="triplet", **values), LABELS, 10)
