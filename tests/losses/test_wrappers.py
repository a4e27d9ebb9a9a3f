"""Losses of truncated embeddings, weighted sums of losses, and pair losses of several views."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError
from tests.losses.cases import DEGENERATE, D, M, N, cosine, mean, related, unit
from tests.losses.test_pair_losses import contrastive, multi_similarity, nt_xent, supervised_contrastive
from tests.slow import mostly_slow

SIZES, FACTORS = (2, D), (0.5, 2.0)


@pytest.fixture
def x(random):
    return random.normal(size=(N, D))


@pytest.mark.parametrize("kind", ["shared labels", "reference"])
def test_matryoshka_equals_loops(random, x, kind):
    labels, ref_labels, positive, negative = related(kind, random)
    y = x if ref_labels is None else random.normal(size=(M, D))
    if ref_labels is None:
        positive, negative = positive & ~np.eye(N, dtype=bool), negative & ~np.eye(N, dtype=bool)
    options = {} if ref_labels is None else {"ref_embeddings": jnp.float32(y), "ref_labels": ref_labels}
    found = losses.matryoshka_loss(
        losses.multi_similarity_loss, jnp.float32(x), labels, sizes=SIZES, size_weights=FACTORS, block_size=4, **options
    )
    expected = [
        w * multi_similarity(cosine(x[:, :k], y[:, :k]), positive, negative)
        for k, w in zip(SIZES, FACTORS, strict=True)
    ]
    np.testing.assert_allclose(found, sum(expected), rtol=2e-5)


TRUNCATED = {  # loss, its arguments, and whether arguments beside the first one are truncated
    "a second view": (losses.info_nce_loss, lambda x, y, p: ((x, y), {}), True),
    "a second view by name": (losses.info_nce_loss, lambda x, y, p: ((x,), {"y": y}), True),
    "all views": (
        partial(losses.self_supervised_loss, losses.nt_xent_loss),
        lambda x, y, p: ((x, y, x + y), {}),
        True,
    ),
    "predictions": (
        losses.simsiam_loss,
        lambda x, y, p: ((x, y), {"other_prediction": y, "other_projection": x}),
        True,
    ),
    "proxies": (losses.proxy_anchor_loss, lambda x, y, p: ((x, np.arange(N) % 3), {"proxies": p}), True),
    "not a teacher": (
        losses.similarity_distillation_loss,
        lambda x, y, p: ((x, y), {}),
        False,
    ),
}


@pytest.mark.parametrize("case", TRUNCATED)
def test_matryoshka_truncates_every_argument_that_holds_embeddings(random, x, case):
    loss, arguments, others_too = TRUNCATED[case]
    arrays = [jnp.float32(a) for a in (x, random.normal(size=(N, D)), random.normal(size=(3, D)))]
    args, options = arguments(*arrays)
    found = losses.matryoshka_loss(loss, *args, sizes=SIZES, **options)
    expected = 0.0
    for k in SIZES:
        args, options = arguments(*(np.asarray(a)[:, : k if others_too or a is arrays[0] else D] for a in arrays))
        expected += loss(*args, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_matryoshka_of_all_features_is_the_loss(x):
    a, labels = jnp.float32(x), np.arange(N) % 3
    found = losses.matryoshka_loss(losses.nt_xent_loss, a, labels, sizes=(D,), measure="dot")
    np.testing.assert_array_equal(found, losses.nt_xent_loss(a, labels, measure="dot"))


def test_matryoshka_of_unit_vectors(x):
    a, labels = jnp.float32(x), np.arange(N) % 3
    found = losses.matryoshka_loss(losses.nt_xent_loss, a, labels, sizes=SIZES, normalize=True, measure="dot")
    expected = sum(losses.nt_xent_loss(jnp.float32(unit(x[:, :k])), labels, measure="dot") for k in SIZES)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_matryoshka_adds_weighted_terms(x):
    a, labels = jnp.float32(x), np.arange(N) % 3
    terms = losses.matryoshka_loss(
        losses.unreduced(losses.nt_xent_loss), a, labels, sizes=SIZES, size_weights=FACTORS, weights=jnp.ones(N)
    )
    parts = [losses.unreduced(losses.nt_xent_loss)(a[:, :k], labels) for k in SIZES]
    np.testing.assert_allclose(terms.total, sum(w * t.total for w, t in zip(FACTORS, parts, strict=True)), rtol=1e-6)
    np.testing.assert_array_equal(terms.count, sum(t.count for t in parts))


def test_matryoshka_has_gradients_of_embeddings_and_weights(x):
    labels = np.arange(N) % 3
    with jax.enable_x64(True):
        a = jnp.asarray(x)

        @jax.jit
        def loss(a, w):
            return losses.matryoshka_loss(losses.nt_xent_loss, a, labels, sizes=SIZES, size_weights=(w, 1))

        jax.test_util.check_grads(loss, (a, 0.5), order=1, modes=["rev"])
        at_two = losses.nt_xent_loss(a[:, :2], labels)
        np.testing.assert_allclose(jax.grad(loss, argnums=1)(a, 0.5), at_two, rtol=1e-12)


def test_combined_equals_the_weighted_sum_of_its_parts(random, x):
    labels = random.integers(0, 3, N)
    a, same = jnp.float32(x), labels[:, None] == labels
    three = {
        "pairs": losses.contrastive_loss,
        "warm": partial(losses.nt_xent_loss, temperature=0.5),
        "classes": lambda a, labels: losses.arcface_loss(a, labels, proxies=jnp.eye(D)[:3]),
    }

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def combined(a):
        return losses.combined_loss(three, a, labels, loss_weights={"pairs": 0.25, "classes": 0.0})

    (total, parts), gradient = combined(a)
    positive, negative = same & ~np.eye(N, dtype=bool), ~same
    distance = np.linalg.norm(unit(x)[:, None] - unit(x)[None], axis=2)
    expected = {
        "pairs": contrastive(distance, positive, negative),
        "warm": nt_xent(cosine(x, x), positive, negative, t=0.5),
    }
    assert set(parts) == set(three)
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=2e-5)
    np.testing.assert_allclose(parts["classes"], three["classes"](a, labels), rtol=1e-6)
    np.testing.assert_allclose(total, 0.25 * expected["pairs"] + expected["warm"], rtol=2e-5)
    by_parts = jax.jit(jax.grad(lambda a: 0.25 * three["pairs"](a, labels) + three["warm"](a, labels)))(a)
    np.testing.assert_allclose(gradient, by_parts, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_self_supervised_equals_loops(random, x, symmetric):
    y = random.normal(size=(N, D))
    if symmetric:
        both, ids = np.concatenate([x, y]), np.tile(np.arange(N), 2)
        same = ids[:, None] == ids
        expected = supervised_contrastive(cosine(both, both), same & ~np.eye(2 * N, dtype=bool), ~same)
    else:
        expected = supervised_contrastive(cosine(x, y), np.eye(N, dtype=bool), ~np.eye(N, dtype=bool))
    found = losses.self_supervised_loss(
        losses.supervised_contrastive_loss, jnp.float32(x), jnp.float32(y), symmetric=symmetric, block_size=4
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_self_supervised_of_three_views(random, x):
    views = [x, *random.normal(size=(2, N, D))]
    s = cosine(np.concatenate(views), np.concatenate(views)) / 0.07
    terms = []
    for i in range(3 * N):
        positives = [k for k in range(3 * N) if k % N == i % N and k != i]
        negatives = sum(np.exp(s[i, k]) for k in range(3 * N) if k % N != i % N)
        terms += [-np.log(np.exp(s[i, k]) / (np.exp(s[i, k]) + negatives)) for k in positives]
    found = losses.self_supervised_loss(losses.nt_xent_loss, *map(jnp.float32, views))
    np.testing.assert_allclose(found, mean(terms), rtol=2e-5)
    terms_of_first = losses.self_supervised_loss(
        losses.unreduced(losses.nt_xent_loss), *map(jnp.float32, views), symmetric=False
    )
    np.testing.assert_array_equal(terms_of_first.count, np.full(N, 2))


@pytest.mark.parametrize("symmetric", [True, False])
def test_self_supervised_weights_rows_in_all_views(random, x, symmetric):
    a, b, weights = jnp.float32(x), jnp.float32(random.normal(size=(N, D))), jnp.float32(random.random(N))
    of = partial(losses.self_supervised_loss, losses.unreduced(losses.nt_xent_loss), a, b, symmetric=symmetric)
    plain, weighted = of(), of(weights=weights)
    np.testing.assert_allclose(weighted.total, plain.total * jnp.tile(weights, 1 + symmetric), rtol=1e-5)


WRAPPED = {
    "matryoshka": lambda x, labels: losses.matryoshka_loss(losses.nt_xent_loss, x, labels, sizes=(2, 4)),
    "self_supervised": lambda x, labels: losses.self_supervised_loss(losses.nt_xent_loss, x, -x),
}


@pytest.mark.parametrize("name", mostly_slow(WRAPPED, *list(WRAPPED)[:1]))
@pytest.mark.parametrize(
    "dtype", ["float32", *(pytest.param(t, marks=pytest.mark.slow) for t in ("bfloat16", "float16"))]
)
def test_no_nan_at_degenerate_batches(name, dtype):
    both = jax.jit(jax.value_and_grad(WRAPPED[name]))
    for case, (x, labels) in DEGENERATE.items():
        with np.errstate(over="ignore"):
            x = jnp.asarray(np.clip(x, -6e4, 6e4) if dtype == "float16" else x, dtype)
        value, gradient = both(x, jnp.asarray(labels, jnp.int32))
        assert np.isfinite(value), case
        assert np.isfinite(np.float32(gradient)).all(), case
        if "row" in case and name != "self_supervised":  # its row has a positive in the other view
            assert float(value) == 0, case
            assert not np.any(gradient), case


@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments():
    x, labels = jnp.ones((3, 4)), jnp.array([0, 1, 1])
    for sizes in ((), (0, 2), (5,)):
        with pytest.raises(InputError, match=r"sizes: expected numbers of features from 1 to 4, got \("):
            losses.matryoshka_loss(losses.nt_xent_loss, x, labels, sizes=sizes)
    with pytest.raises(InputError, match="size_weights: expected one for each of 2 sizes, got 1"):
        losses.matryoshka_loss(losses.nt_xent_loss, x, labels, sizes=(2, 4), size_weights=(1.0,))
    with pytest.raises(TypeError, match="labels"):
        losses.matryoshka_loss(losses.nt_xent_loss, x, sizes=(2,))
    with pytest.raises(InputError, match="losses: expected at least one"):
        losses.combined_loss({}, x, labels)
    with pytest.raises(InputError, match="unknown name in loss_weights 'pears'.*did you mean pairs"):
        losses.combined_loss({"pairs": losses.nt_xent_loss}, x, labels, loss_weights={"pears": 1.0})
    with pytest.raises(InputError, match="views: expected at least one"):
        losses.self_supervised_loss(losses.nt_xent_loss, x)
    with pytest.raises(InputError, match=r"views: expected the shape of x, \(3, 4\), got \[\(2, 4\)\]"):
        losses.self_supervised_loss(losses.nt_xent_loss, x, x[:2])
