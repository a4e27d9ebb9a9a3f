"""Every pair loss: values against loops, gradients against finite differences, degenerate batches, reducers, errors."""

import itertools
import logging

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from tests.losses.cases import (
    DEGENERATE,
    RELATIONS,
    D,
    M,
    N,
    assert_gradient_equals_slope,
    assert_no_nan,
    cosine,
    float32,
    loss_named,
    related,
    rows,
)
from tests.losses.oracles import ORACLES
from tests.slow import mostly_slow

# A loss with one term for each pair, for each row, and with sums of terms: the three kinds that the engine knows.
ONE_OF_EACH_KIND = ("contrastive", "supervised_contrastive", "triplet_margin")
ONE_OF_EACH_FAMILY = (
    *ONE_OF_EACH_KIND,
    "multi_similarity",
    "lifted_structure",
    "n_pairs",
    "margin",
    "histogram",
    "pnp",
    "angular",
)
OF_GROUPS = ("n_pairs", "instance")  # take no reference embeddings; test_structured.py has their relations
WITH_REFERENCE = [name for name in ORACLES if name not in OF_GROUPS]
# Their gradient leaves out weights, which have tests of their own.
CONSTANT_WEIGHTS = ("circle", "dynamic_soft_margin")


def without_diagonal(mask):
    return mask & ~np.eye(len(mask), dtype=bool)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, *ONE_OF_EACH_FAMILY))
def test_value_equals_loops_and_gradient_equals_finite_differences(random, name):
    x, labels = random.normal(size=(N, D)), random.integers(0, 3, N)
    same = labels[:, None] == labels
    positive = same if name == "instance" else without_diagonal(same)  # a first row is its own positive
    with jax.enable_x64(True):
        compiled = jax.jit(jax.value_and_grad(loss_named(name)))

        def value_and_gradient(x):
            return compiled(x, labels)

        np.testing.assert_allclose(value_and_gradient(x)[0], ORACLES[name](x, x, positive, ~same), rtol=1e-9)
        if name not in CONSTANT_WEIGHTS:
            assert_gradient_equals_slope(value_and_gradient, x, random)


@pytest.mark.parametrize(
    ("name", "kind"),
    mostly_slow(
        [
            (name, kind)
            for name in WITH_REFERENCE
            for kind in RELATIONS
            if kind == "reference" or name in (*ONE_OF_EACH_KIND, "lifted_structure", "pnp")
        ],
        ("contrastive", "reference"),
        ("supervised_contrastive", "classes"),
        ("triplet_margin", "classes"),
    ),
)
def test_equals_loops_for_every_relation(random, name, kind):
    labels, ref_labels, positive, negative = related(kind, random)
    x = y = random.normal(size=(N, D))
    options = {}
    if ref_labels is None:
        positive, negative = without_diagonal(positive), without_diagonal(negative)
    else:
        y = random.normal(size=(M, D))
        options = {"ref_embeddings": float32(y), "ref_labels": ref_labels}
    found = loss_named(name)(float32(x), labels, block_size=4, **options)
    np.testing.assert_allclose(found, ORACLES[name](x, y, positive, negative), rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WITH_REFERENCE if name not in CONSTANT_WEIGHTS])
def test_gradient_of_several_blocks_equals_finite_differences(random, name):
    """By rows and by reference rows."""
    both, labels, ref_labels = random.normal(size=(N + M, 3)), np.arange(N) % 3, np.arange(M) % 3
    with jax.enable_x64(True):

        @jax.jit
        @jax.value_and_grad
        def value_and_gradient(both):
            references = {"ref_embeddings": both[N:], "ref_labels": ref_labels}
            return loss_named(name)(both[:N], labels, block_size=4, **references)

        assert_gradient_equals_slope(value_and_gradient, both, random)


def test_the_weights_of_the_circle_loss_are_constants(random):
    """The gradient of a row by a cosine is a softmax times gamma times the weight of the pair."""
    x, labels = random.normal(size=(7, 3)), np.array([0, 0, 1, 1, 2, 2, 2])
    s, m, gamma = cosine(x, x), 0.4, 5.0
    by_cosine = np.zeros_like(s)
    same = labels[:, None] == labels
    for i, (p, q) in enumerate(rows(without_diagonal(same), ~same)):
        far, near = np.maximum(0, 1 + m - s[i, p]), np.maximum(0, s[i, q] + m)
        a, b = np.exp(-gamma * far * (s[i, p] - 1 + m)), np.exp(gamma * near * (s[i, q] - m))
        outer = a.sum() * b.sum() / (1 + a.sum() * b.sum())
        by_cosine[i, p] = -outer * a / a.sum() * gamma * far
        by_cosine[i, q] = outer * b / b.sum() * gamma * near

    def of_cosines(x):
        unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        return jnp.sum(by_cosine * (unit @ unit.T))

    with jax.enable_x64(True):
        gradient = jax.grad(lambda x: losses.circle_loss(x, labels, gamma=5.0, reducer="sum"))
        found, expected = jax.jit(lambda x: (gradient(x), jax.grad(of_cosines)(x)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


# Losses with a term for a row without positives or without negatives.
NOTHING_TO_LEARN = {"instance": ("no row", "one row")} | {
    name: ("no row", "one row") for name in ("multi_similarity", "contrastive", "ranked_list", "intra_pair_variance")
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    mostly_slow(
        [*itertools.product(ORACLES, ("float32", "float16")), ("contrastive", "bfloat16")],
        ("contrastive", "float32"),
    ),
)
def test_no_nan_at_degenerate_batches(name, dtype):
    zero = NOTHING_TO_LEARN.get(name, ("no row", "one row", "no positive pair"))
    assert_no_nan(loss_named(name), dtype, zero)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, *ONE_OF_EACH_KIND))
def test_terms_without_positive_pairs(name):
    loss = losses.unreduced(loss_named(name))

    @jax.jit
    def compute(x, labels):
        references = {"ref_embeddings": np.zeros((0, 4), np.float32), "ref_labels": np.zeros(0, int)}
        without_columns = () if name in OF_GROUPS else (loss(x, labels, **references),)
        return loss(x, labels), *without_columns

    x, labels = DEGENERATE["no positive pair"]
    terms, *without_columns = compute(float32(x), np.array(labels))
    for empty in without_columns:
        np.testing.assert_array_equal(empty.total, 0)
        np.testing.assert_array_equal(empty.count, 1 if name == "multi_similarity" else 0)  # has a term for every row
    assert terms.total.shape == terms.count.shape == (4,)
    # Negative pairs have terms in these losses, and every row is an instance.
    of_negatives = {"multi_similarity": 1, "ranked_list": 1, "instance": 1, "intra_pair_variance": 3, "contrastive": 0}
    np.testing.assert_array_equal(terms.count, of_negatives.get(name, 0))
    if name not in of_negatives:
        assert not np.any(terms.total)


@pytest.mark.parametrize("name", mostly_slow(ONE_OF_EACH_KIND, "contrastive"))
def test_reducers(random, name):
    x, labels, weights = float32(random.normal(size=(N, D))), random.integers(0, 3, N), float32(random.random(N))
    loss = loss_named(name)

    @jax.jit
    def compute(x, labels):
        by_class = losses.Reducer(class_weights=float32([0.0, 0.0, 3.0]), divide_by=None)
        found = {"by class": loss(x, labels, reducer=by_class)}
        found |= {reducer: loss(x, labels, reducer=reducer) for reducer in ("mean", "sum")}
        return found, *(losses.unreduced(loss)(x, labels, weights=w) for w in (None, weights))

    found, plain, weighted = compute(x, labels)
    total, count = np.asarray(plain.total), np.asarray(plain.count)
    np.testing.assert_allclose(weighted.total, total * weights, rtol=1e-5)
    np.testing.assert_array_equal(weighted.count, count)
    np.testing.assert_allclose(found["sum"], total.sum(), rtol=1e-5)
    np.testing.assert_allclose(found["by class"], 3 * total[labels == 2].sum(), rtol=1e-5)
    if name == "supervised_contrastive":  # has no term of 0
        np.testing.assert_allclose(found["mean"], total.sum() / count.sum(), rtol=1e-5)


def test_reducers_with_bounds():
    terms, valid = float32([[0.0, 1.0, 2.0, 3.0]]), np.array([[True, True, True, False]])
    cases = (
        (losses.Reducer(), 1.0),
        (losses.REDUCERS["mean_active"], 1.5),
        (losses.Reducer(above=0.0, below=2.0), 1.0),
        (losses.Reducer(above=5.0), 0.0),
        (losses.REDUCERS["sum"], 3.0),
    )

    @jax.jit
    def reduce(terms, valid):
        return [reducer.scalar(reducer.sum_rows((terms, valid), jnp.ones(1))) for reducer, _ in cases]

    np.testing.assert_array_equal(reduce(terms, valid), [expected for _, expected in cases])


def test_per_row_gives_every_row_the_same_weight():
    terms = losses.LossTerms(jnp.array([6.0, 1.0, 0.0]), jnp.array([3, 1, 0]))
    assert float(losses.REDUCERS["per_row"].scalar(terms)) == 1.5
    assert float(losses.REDUCERS["mean"].scalar(terms)) == 1.75


def test_info_nce_in_both_directions(random):
    x, y = random.normal(size=(N, D)), random.normal(size=(N, D))
    z = cosine(x, y) / 0.2
    by_rows = np.mean(np.log(np.exp(z).sum(1)) - np.diag(z))
    by_columns = np.mean(np.log(np.exp(z).sum(0)) - np.diag(z))

    @jax.jit
    def compute(x, y):
        def loss(**options):
            return losses.info_nce_loss(x, y, temperature=0.2, **options)

        terms = losses.unreduced(losses.info_nce_loss)(x, y, temperature=0.2, directions="both")
        return loss(), loss(directions="both", block_size=3), terms

    one, both, terms = compute(float32(x), float32(y))
    np.testing.assert_allclose(one, by_rows, rtol=1e-5)
    np.testing.assert_allclose(both, (by_rows + by_columns) / 2, rtol=1e-5)
    total, count = np.asarray(terms.total), np.asarray(terms.count)
    np.testing.assert_allclose(total.sum() / count.sum(), both, rtol=1e-5)


def test_siglip_equals_loops(random):
    x, y = random.normal(size=(N, D)), random.normal(size=(M, D))
    labels, ref = random.integers(0, 3, N), random.integers(0, 3, M)
    sign = np.where(labels[:, None] == ref, 1, -1)
    expected = np.log1p(np.exp(-sign * (4.0 * cosine(x, y) - 1.5))).sum() / N
    relation = pairs.by_class(labels, ref)
    found = losses.siglip_loss(float32(x), float32(y), relation, log_scale=np.log(4.0), bias=-1.5, block_size=3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", mostly_slow(ORACLES, "contrastive", "n_pairs"))
def test_other_labels_do_not_recompile(random, caplog, name):
    x = float32(random.normal(size=(N, D)))
    loss_named(name)(x, random.integers(0, 3, N), block_size=4)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for classes in (1, 2, 5, N):
            loss_named(name)(x, random.integers(0, classes, N), block_size=4)
    assert [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()] == []


@pytest.mark.usefixtures("unchecked")
def test_errors():
    """Wrong options of every loss are tested in test_options.py."""
    x, labels, no_ids = np.zeros((3, 2), np.float32), np.array([0, 1, 1]), pairs.by_matrix(np.eye(3, dtype=bool))

    def trace(name, labels, **options):
        jax.eval_shape(lambda x: loss_named(name)(x, labels, **options), x)

    for name in ORACLES:
        with pytest.raises(InputError, match=r"relation of \(3, 3\) rows and columns, got \(2, 2\)"):
            trace(name, labels[:2])
        with pytest.raises(TypeError, match="integer class ids, got float32"):
            trace(name, np.zeros(3, np.float32))
        with pytest.raises(InputError, match="need class ids"):
            trace(name, no_ids, reducer=losses.Reducer(class_weights=np.ones(2)))
        if name in WITH_REFERENCE:
            with pytest.raises(InputError, match="one without the other"):
                trace(name, labels, ref_embeddings=x)
    for name, wrong in itertools.product(("nt_xent", "supervised_contrastive"), (0.0, -1.0, float("nan"))):
        with pytest.raises(InputError, match="temperature: expected more than 0"):
            loss_named(name)(x, labels, temperature=wrong)
    with pytest.raises(InputError, match="expected a similarity, got euclidean"):
        losses.circle_loss(x, labels, measure="euclidean")
    with pytest.raises(InputError, match="expected no bound but above=0"):
        losses.triplet_margin_loss(x, labels, reducer=losses.Reducer(above=0.5))


@pytest.mark.parametrize(
    ("loss", "settings", "options"),
    mostly_slow(
        [
            (losses.contrastive_loss, {"variant": "hadsell", "margin": 1.3}, {}),
            (losses.contrastive_loss, {"margin": 1.3}, {"measure": "signal_to_noise"}),
            (losses.contrastive_loss, {"margin": 1.3}, {"reducer": "per_row"}),
            (losses.threshold_consistent_margin_loss, {"positive_margin": 0.95}, {"reducer": "sum"}),
            (losses.nt_xent_loss, {"temperature": 0.3}, {}),
            (losses.supervised_contrastive_loss, {"temperature": 0.3}, {}),
        ],
    ),
)
def test_derivatives_of_both_modes_and_orders(random, loss, settings, options):
    """By the embeddings, as rows and as columns, and by a hyper-parameter."""
    with jax.enable_x64(True):
        x, labels = jnp.asarray(random.normal(size=(9, 3))), random.integers(0, 3, 9)
        name, setting = list(settings.items())[-1]

        @jax.jit
        def value(x, setting):
            return loss(x, labels, **(settings | {name: setting}), **options)

        jax.test_util.check_grads(value, (x, setting), order=2)


def test_the_gradient_of_the_terms_of_single_rows(random):
    with jax.enable_x64(True):
        x, labels = random.normal(size=(7, 3)), np.array([0, 0, 0, 0, 1, 1, 2])

        @jax.jit
        @jax.value_and_grad
        def value_and_gradient(x):
            return jnp.vdot(np.arange(7.0), losses.unreduced(losses.contrastive_loss)(x, labels, margin=1.3).total)

        assert_gradient_equals_slope(value_and_gradient, x, random)
