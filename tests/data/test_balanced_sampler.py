"""Samplers without replacement. Tests share compiled draws: tables are arguments of equal shapes."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from simjax.data import (
    ClassTable,
    class_table,
    fixed_triplets,
    hierarchy,
    permutation_at,
    sample_balanced,
    sample_hierarchical,
    sample_triplets,
)
from simjax.data._balanced_sampler import _draw
from tests.slow import mostly_slow

COUNTS = np.array([6, 0, 3, 12, 1, 7, 2, 9])
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(8), COUNTS))
PRESENT = np.flatnonzero(COUNTS)  # 7 classes
KEY = jax.random.key(11)
TRIPLET_LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(5), [7, 0, 3, 11, 1]))
SUPER = np.array([0, 0, 0, 1, 1, 2, 2, 2])  # of each class; class 1 has no images
EPOCHS = 700  # of 3 batches of 3 classes with 5 images each

draw_batches = jax.jit(jax.vmap(lambda step, table: sample_balanced(KEY, step, table, 3, 5), (0, None)))
jit_permutation_at = jax.jit(permutation_at)


def batches(table: ClassTable) -> np.ndarray:
    """Return the images of all batches, [epoch, batch, class, image]."""
    return np.asarray(draw_batches(np.arange(3 * EPOCHS), table)).reshape(EPOCHS, 3, 3, 5)


@pytest.fixture(scope="module")
def table() -> ClassTable:
    return class_table(LABELS, 8)


@pytest.fixture(scope="module")
def drawn(table) -> np.ndarray:
    return batches(table)


def compilations_of(name: str, caplog: pytest.LogCaptureFixture) -> int:
    messages = [record.getMessage() for record in caplog.records]
    return sum(f"Finished XLA compilation of jit({name})" in message for message in messages)


def test_an_epoch_has_every_class_before_any_repeats(drawn):
    labels = LABELS[drawn]
    assert (labels == labels[..., :1]).all()  # the images of one class next to each other
    classes = labels[..., 0]
    assert (np.diff(np.sort(classes)) > 0).all()  # within a batch
    orders = classes.reshape(EPOCHS, 9)
    assert (np.sort(orders[:, :7]) == PRESENT).all()
    assert (orders[:, 7] != orders[:, 8]).all()
    assert len({tuple(order) for order in orders[:4]}) == 4


def test_the_images_of_a_class_are_drawn_without_replacement(drawn):
    """One draw of each class in an epoch is no padding. ceil(count / 5) such draws have all images of the class."""
    regular = drawn.reshape(EPOCHS, 9, 5)[:, :7]
    label = LABELS[regular[..., 0]]
    for c in PRESENT:
        draws = -(-COUNTS[c] // 5)
        for images in regular[label == c][: EPOCHS // draws * draws].reshape(-1, 5 * draws):
            assert sorted(images[: COUNTS[c]]) == np.flatnonzero(c == LABELS).tolist()
            times = np.unique(images, return_counts=True)[1]
            assert times.max() - times.min() <= 1


def test_the_images_of_a_padded_class_are_distinct_if_it_has_enough(drawn):
    for row in drawn.reshape(EPOCHS, 9, 5)[:50, 7:].reshape(-1, 5).tolist():
        times = np.unique(row, return_counts=True)[1]
        assert len(times) == min(5, COUNTS[LABELS[row[0]]])
        assert times.max() - times.min() <= 1


def test_all_classes_pad_the_last_batch_equally_often(drawn):
    """An epoch of 7 classes has 9 positions, of which two are padded: 200 times by each class in 700 epochs."""
    seen = np.bincount(LABELS[drawn[..., 0]].ravel(), minlength=8)[PRESENT] - EPOCHS
    assert seen.sum() == 2 * EPOCHS
    np.testing.assert_allclose(seen, 200, atol=60)  # a standard error of 12


def test_a_batch_depends_on_key_and_step_only_and_all_steps_compile_once(table, drawn, caplog):
    with jax.log_compiles():
        found = [sample_balanced(KEY, step, table, 3, 5) for step in (0, 4, 5)]
        others = [sample_balanced(jax.random.key(seed), 5, table, 3, 5).tolist() for seed in range(3)]
    assert compilations_of("sample_balanced", caplog) == 1
    assert found[0].dtype == jnp.int32
    np.testing.assert_array_equal(found, drawn.reshape(-1, 15)[[0, 4, 5]])
    assert all(other != found[2].tolist() for other in others)


def test_one_class_and_too_few_classes(table):
    one = class_table(np.repeat(3, 12), 8)
    assert one.rows.shape == table.rows.shape
    for batch in batches(one)[:20].reshape(-1, 15):  # 15 draws of 12 images
        times = np.bincount(batch, minlength=12)
        assert (times.min(), times.max()) == (1, 2)
    labels = np.repeat([3, 4], [12, 1])
    for batch in labels[batches(class_table(labels, 8))[:20, ..., 0].reshape(-1, 3)]:
        assert sorted(np.bincount(batch, minlength=5)[[3, 4]]) == [1, 2]


def test_super_classes_and_their_classes_are_drawn_without_replacement(caplog):
    table = hierarchy(LABELS, SUPER[LABELS])
    assert table.super_classes.counts.tolist() == [2, 2, 3]
    draw = partial(sample_hierarchical, super_classes_per_batch=2, classes_per_super_class=2, m=3)
    with jax.log_compiles():
        drawn = np.stack([draw(KEY, step, table) for step in range(24)])
    drawn = drawn.reshape(12, 2, 2, 2, 3)  # epoch, batch, super-class, class, image
    label = LABELS[drawn]
    assert (label == label[..., :1]).all()
    classes = label[..., 0]
    above = SUPER[classes]
    assert (above == above[..., :1]).all()
    for epoch in above[..., 0]:
        assert all(len(set(batch)) == 2 for batch in epoch.tolist())
        assert sorted(epoch.ravel()[:3]) == [0, 1, 2]
    assert all(len(set(pair)) == 2 for pair in classes.reshape(-1, 2).tolist())
    assert set(classes.ravel().tolist()) == set(PRESENT.tolist())
    for row in drawn.reshape(-1, 3).tolist():
        assert len(set(row)) == min(3, COUNTS[LABELS[row[0]]])
    # In the first draw of super-class 2 in each epoch, its 3 classes are drawn without replacement, 2 at a time.
    drawn_super_classes = above[..., 0].reshape(12, 4)
    first = [classes.reshape(12, 4, 2)[epoch, np.argmax(drawn_super_classes[epoch] == 2)] for epoch in range(12)]
    for pair in np.array(first).reshape(6, 4):
        assert sorted(pair[:3].tolist()) == [5, 6, 7]

    # A class that repeats in a batch has different images. Super-class 0 has one class of 9 images, super-class 1 one
    # of 4, and both are drawn twice in a batch with 3 images each. The shapes are those above.
    labels = np.repeat([0, 3, 5, 6, 7], [9, 4, 1, 1, 12])
    table = hierarchy(labels, SUPER[labels])
    with jax.log_compiles():
        drawn = np.stack([draw(KEY, step, table) for step in range(12)]).reshape(24, 6)
    assert compilations_of("sample_hierarchical", caplog) == 1
    assert set(labels[drawn[:, 0]]) >= {0, 3}
    for images in drawn:
        times = np.unique(images, return_counts=True)[1]
        if labels[images[0]] == 0:
            assert times.max() == 1  # enough images
        elif labels[images[0]] == 3:
            assert sorted(times) == [1, 1, 2, 2]  # each is drawn before any repeats


@pytest.mark.slow
def test_a_super_class_of_one_class_and_one_super_class():
    table = hierarchy(np.array([0, 0, 2]), np.array([0, 0, 0]))
    drawn = sample_hierarchical(KEY, 0, table, 1, 2, 2).tolist()
    assert sorted(drawn) == [0, 1, 2, 2]
    table = hierarchy(np.array([0, 0]), np.array([1, 1]))  # super-class 0 has no images
    assert sorted(sample_hierarchical(KEY, 0, table, 1, 2, 1).tolist()) == [0, 1]


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_errors(table):
    for k in (0, 9):
        with pytest.raises(InputError, match=rf"classes_per_batch: expected 1 \.\. 8 classes, got {k}"):
            sample_balanced(KEY, 0, table, k, 2)
    with pytest.raises(InputError, match="m: expected at least 1, got 0"):
        sample_balanced(KEY, 0, table, 2, 0)
    tree = hierarchy(LABELS, SUPER[LABELS])
    with pytest.raises(InputError, match=r"super_classes_per_batch: expected 1 \.\. 3 super-classes, got 4"):
        sample_hierarchical(KEY, 0, tree, 4, 2, 2)
    with pytest.raises(InputError, match="classes_per_super_class: expected at least 1"):
        sample_hierarchical(KEY, 0, tree, 2, 0, 2)
    with pytest.raises(InputError, match="m: expected at least 1"):
        sample_hierarchical(KEY, 0, tree, 2, 2, 0)
    with pytest.raises(InputError, match=r"one super-class for each class, got several for \[1\]"):
        hierarchy(np.array([0, 1, 1]), np.array([0, 0, 1]))
    with pytest.raises(InputError, match="super_labels: expected one for each label"):
        hierarchy(np.array([0, 1, 1]), np.array([0, 0]))
    with pytest.raises(InputError, match="labels: expected"):
        hierarchy(np.array([0, -1]), np.array([0, 0]))


def test_different_positions_have_different_elements_that_depend_on_the_key():
    for n in (1, 2, 7, 64, 997):
        orders = [
            np.asarray(jit_permutation_at(jax.random.key(seed), np.arange(997) % n, n))[:n].tolist()
            for seed in (0, 0, 1)
        ]
        assert all(sorted(order) == list(range(n)) for order in orders)
        assert orders[0] == orders[1]
        assert n < 7 or orders[0] != orders[2]


def test_one_position_of_a_long_permutation():
    n = 10_000_000
    order = jit_permutation_at(KEY, n - 1 - np.arange(997), n)
    alone = jit_permutation_at(KEY, n - 3, n)
    assert (alone.shape, alone.dtype) == ((), jnp.int32)
    assert int(alone) == int(np.asarray(order)[2])
    assert jax.eval_shape(permutation_at, KEY, np.arange(6).reshape(2, 3), 6).shape == (2, 3)


@pytest.fixture(scope="module")
def random_orders() -> Callable[[int], np.ndarray]:
    """Return a function that returns the permutations of n <= 31 elements for 24,000 keys, [24000, n]."""
    draw = jax.jit(jax.vmap(permutation_at, (0, None, None)))
    keys = jax.random.split(jax.random.key(0), 24_000)
    return lambda n: np.asarray(draw(keys, np.arange(31) % n, n))[:, :n]


def test_every_order_is_equally_likely(random_orders):
    seen, count = np.unique(random_orders(4), axis=0, return_counts=True)
    assert seen.tolist() == sorted(map(list, itertools.permutations(range(4))))
    np.testing.assert_allclose(count, 1000, atol=4.5 * np.sqrt(1000))


def test_the_first_two_elements_and_the_distances_of_neighbours_are_uniform(random_orders):
    orders = random_orders(31)
    pairs = np.bincount(orders[:, 0] * 31 + orders[:, 1], minlength=31 * 31).reshape(31, 31)[~np.eye(31, dtype=bool)]
    distances = np.bincount((np.diff(orders, axis=1) % 31).ravel())[1:]
    for count in (pairs, distances):
        chi_squared = np.sum((count - count.mean()) ** 2 / count.mean())
        degrees = len(count) - 1
        assert abs(chi_squared - degrees) < 5 * np.sqrt(2 * degrees)


def test_an_epoch_has_every_member_before_any_repeats():
    k = 3
    draw = jax.jit(jax.vmap(lambda number, n: _draw(jax.random.key(5), number, n, k), (0, None)))
    for n in (7, 6, 3, 2, 1):
        draws = -(-n // k)
        found = draw(np.arange(12), n)  # of 4 epochs or more
        data = jax.random.key_data(found.keys)
        indices, keys, epochs, repeat, repeats = map(np.asarray, (found.indices, data, *found[2:]))
        orders = set()
        for epoch in range(4):
            rows = slice(epoch * draws, (epoch + 1) * draws)
            members = indices[rows].ravel()
            assert (epochs[rows] == epoch).all()
            for start in range(0, len(members), n):
                part = members[start : start + n].tolist()
                assert len(set(part)) == len(part)
            assert set(members.tolist()) == set(range(n))
            assert all(len(set(batch.tolist())) == min(n, k) for batch in indices[rows])
            occurrences = np.stack([repeat[rows].ravel(), repeats[rows].ravel()], axis=1)
            all_draws = np.concatenate([keys[rows].reshape(len(members), -1), occurrences], axis=1)
            assert len(np.unique(all_draws, axis=0)) == len(members)  # no two draws within members are the same
            assert n < k or (occurrences == [0, 1]).all()
            orders.add(tuple(members.tolist()))
        assert n < 5 or len(orders) == 4


def test_fixed_triplets_are_drawn_from_classes():
    drawn = fixed_triplets(KEY, class_table(TRIPLET_LABELS, 5), 12_000)
    assert drawn.dtype == jnp.int32
    a, p, n = np.asarray(drawn).T
    assert (TRIPLET_LABELS[a] == TRIPLET_LABELS[p]).all()
    assert (TRIPLET_LABELS[a] != TRIPLET_LABELS[n]).all()
    assert (a != p).all()
    own = np.bincount(TRIPLET_LABELS[a], minlength=5) / 12_000
    np.testing.assert_allclose(own, [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.02)  # the classes with two images
    other = np.bincount(TRIPLET_LABELS[n][TRIPLET_LABELS[a] == 2], minlength=5) / (TRIPLET_LABELS[a] == 2).sum()
    np.testing.assert_allclose(other, [1 / 3, 0, 0, 1 / 3, 1 / 3], atol=0.03)
    drawn_pairs = np.bincount(22 * a + p, minlength=22 * 22).reshape(22, 22)[
        np.ix_(TRIPLET_LABELS == 2, TRIPLET_LABELS == 2)
    ]
    np.testing.assert_allclose(drawn_pairs / drawn_pairs.sum(), (1 - np.eye(3)) / 6, atol=0.03)
    assert drawn.tolist() == fixed_triplets(KEY, class_table(TRIPLET_LABELS, 5), 12_000).tolist()


@pytest.mark.parametrize(("t", "batch"), mostly_slow([(6, 3), (7, 3), (5, 5), (1, 1)], (7, 3)))
def test_an_epoch_has_every_triplet_before_any_repeats(t, batch, caplog):
    triplets = np.arange(3 * t).reshape(t, 3)
    length = -(-t // batch)
    with jax.log_compiles():
        drawn = [np.stack(sample_triplets(KEY, step, triplets, batch), axis=1) for step in range(3 * length)]
        sample_triplets(jax.random.key(1), 0, triplets[::-1], batch)
    assert compilations_of("_sample_triplets", caplog) == 1
    assert all((d == triplets[d[:, 0] // 3]).all() for d in drawn)
    assert all(len(set(d[:, 0].tolist())) == batch for d in drawn)
    for epoch in np.stack(drawn)[:, :, 0].reshape(3, -1):
        assert sorted((epoch[:t] // 3).tolist()) == list(range(t))


def test_the_loss_of_a_batch_of_triplets(random):
    x, triplets = random.normal(size=(9, 4)).astype(np.float32), random.permutation(9).reshape(3, 3)

    @jax.jit
    def loss(step: Any) -> Any:
        anchor, positive, negative = sample_triplets(KEY, step, triplets, 3)
        relation = pairs.by_matrix(jnp.eye(3, 6, dtype=bool), jnp.eye(3, 6, k=3, dtype=bool))
        embeddings = jnp.asarray(x)
        others = embeddings[jnp.concatenate([positive, negative])]
        options: dict[str, Any] = {"measure": "euclidean", "reducer": "mean"}
        return losses.triplet_margin_loss(embeddings[anchor], relation, ref_embeddings=others, margin=2.0, **options)

    a, p, n = (x[triplets[:, i]] for i in range(3))
    expected = np.maximum(0, np.linalg.norm(a - p, axis=1) - np.linalg.norm(a - n, axis=1) + 2.0).mean()
    np.testing.assert_allclose(loss(0), expected, rtol=2e-5)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_of_triplets_are_errors():
    for labels in ([0, 0, 0], [0, 1, 2], []):
        with pytest.raises(InputError, match="table: expected at least two classes with images, one of them"):
            fixed_triplets(KEY, class_table(np.array(labels, int), 3), 4)
    with pytest.raises(InputError, match="n_triplets: expected at least 1"):
        fixed_triplets(KEY, class_table(np.array([0, 0, 1]), 2), 0)
    with pytest.raises(InputError, match=r"triplets: expected shape \[t, 3\], got \(4, 2\)"):
        sample_triplets(KEY, 0, np.zeros((4, 2), int), 2)
    for batch in (0, 5):
        with pytest.raises(InputError, match=rf"batch: expected 1 \.\. 4, the number of triplets, got {batch}"):
            sample_triplets(KEY, 0, np.zeros((4, 3), int), batch)


@pytest.mark.usefixtures("unchecked")
def test_hierarchies_and_triplets_of_64_bits_are_exact_or_errors():
    labels, super_labels = np.array([0, 1, 1], np.uint64), np.array([0, 1, 1])
    assert hierarchy(labels, super_labels).super_classes.rows.tolist() == [[0], [1]]
    for argument, given in (
        ("labels", (labels + 2**33, super_labels)),
        ("super_labels", (labels, super_labels + 2**33)),
    ):
        with pytest.raises(InputError, match=f"^{argument}: expected integers that int32 holds"):
            hierarchy(*given)
    with pytest.raises(InputError, match="triplets: expected integers that int32 holds, got 0 to 4294967298"):
        sample_triplets(jax.random.key(0), 0, np.array([[0, 1, 2**32 + 2]]), 1)
    with pytest.raises(TypeError, match="triplets: expected integer"):
        sample_triplets(jax.random.key(0), 0, np.array([[0.0, 1.0, 2.0]]), 1)
