"""Class ids and features of 64 bits in every loss, and values with one entry for each class.

Arguments come from the signatures, so a loss that is added later is tested as well.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from tests.losses.cases import float32
from tests.slow import mostly_slow

RANKED = np.array([0, 1, 0, 2, 1, 2])
WIDE = np.array([0, 2**32, 2**33])[RANKED]  # one class for JAX alone
PROXIES = {"soft_triple_loss": (3, 2, 4), "sub_center_arcface_loss": (3, 2, 4), "sub_center_outliers": (3, 2, 4)}
NAMES = sorted(
    name for name, f in vars(losses).items() if inspect.isfunction(f) and "labels" in inspect.signature(f).parameters
)


def pair_terms(scores, positive, negative):
    return {"pair": (jnp.where(positive, -scores, scores), positive | negative)}


def arguments(name):
    """Return the required arguments of a loss other than embeddings and labels."""
    random = np.random.default_rng(1)
    known = {
        "term_function": pair_terms,
        "proxies": float32(random.normal(size=PROXIES.get(name, (3, 4)))),
        "teacher": float32(random.normal(size=(6, 3))),
        "scores": float32(random.normal(size=(6, 6))),
    }
    needed = [p for p in inspect.signature(getattr(losses, name)).parameters.values() if p.default is p.empty]
    return {p.name: known[p.name] for p in needed if p.name in known}


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", mostly_slow(NAMES, "arcface_loss", "margin_loss"))
@pytest.mark.usefixtures("unchecked")
def test_labels_and_features_of_64_bits(name):
    given = arguments(name)
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (6, 4))

    def value(x, labels):
        return getattr(losses, name)(embeddings=x, labels=labels, **given)

    expected = value(float32(x), RANKED)
    assert np.isfinite(jax.tree.leaves(expected)[0]).all()
    assert_equal(value(x, RANKED), expected)
    assert_equal(value(x.tolist(), RANKED.tolist()), expected)
    if "proxies" in given:
        with pytest.raises(InputError, match=f"labels: expected class ids below 3, the number of proxies, got {2**33}"):
            value(x, WIDE)
        assert_equal(value(x, np.where(RANKED, RANKED, -(2**32))), value(x, np.where(RANKED, RANKED, -1)))
    else:
        assert_equal(value(x, WIDE), expected)
        assert_equal(value(x, (WIDE - 2**33).astype(np.uint64)), expected)
    for text in (np.array(list("abacbc")), list("abacbc"), np.array(list("abacbc"), object)):
        with pytest.raises(TypeError, match=r"^labels: .*; pass np.unique\(labels, return_inverse=True\)\[1\]$"):
            value(x, text)


def test_labels_and_reference_labels_of_different_dtypes(random):
    x, y = (float32(random.normal(size=(n, 4))) for n in (6, 5))
    ids, ref = np.array([2**64 - 1, 5, 7, 5, 2**63, 7], np.uint64), np.array([-1, 5, 7, 7, -(2**63)])
    plain = losses.supervised_contrastive_loss(
        x, np.array([3, 5, 7, 5, 4, 7]), ref_embeddings=y, ref_labels=np.array([-1, 5, 7, 7, -2])
    )
    found = losses.supervised_contrastive_loss(x, ids, ref_embeddings=y, ref_labels=ref)
    np.testing.assert_array_equal(found, plain)
    in_jit = jax.jit(lambda x: losses.supervised_contrastive_loss(x, ids, ref_embeddings=y, ref_labels=ref))
    np.testing.assert_allclose(in_jit(x), plain, rtol=1e-6)


WEIGHTS = float32([1.0, 10.0, 100.0])
WEIGHTED = {
    "class weights": lambda x, labels: losses.nt_xent_loss(
        x, labels, reducer=losses.Reducer(class_weights=WEIGHTS, divide_by=None)
    ),
    "betas": lambda x, labels: losses.margin_loss(x, labels, beta=WEIGHTS, measure="euclidean", reducer="sum"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WEIGHTED)
def test_a_class_without_a_value_is_an_error_or_nan_if_traced(what, random):
    x, loss = float32(random.normal(size=(6, 4))), WEIGHTED[what]
    for wrong in (3, 2**32):
        with pytest.raises(InputError, match=f"labels: expected class ids below 3, the number of {what}, got {wrong}"):
            loss(x, np.where(RANKED == 2, wrong, RANKED))
    for labels in (np.where(RANKED == 2, -1, RANKED), pairs.by_class(np.where(RANKED == 2, -1, RANKED))):
        with pytest.raises(InputError, match=f"labels: expected class ids from 0 on, the indices of {what}, got -1"):
            loss(x, labels)
    with pytest.raises(InputError, match=f"{what} need class ids"):
        loss(x, pairs.by_position(6))
    value = jax.jit(jax.value_and_grad(loss))
    assert np.isfinite(value(x, RANKED)[0])
    assert np.isnan(value(x, np.where(RANKED == 2, 3, RANKED))[0])
    assert np.isnan(value(x, np.where(RANKED == 2, -1, RANKED))[0])
    # An ignored id needs no value: the rows of the other classes remain.
    for ignored in (-1, 3, 2**40):
        found = loss(x, pairs.by_class(np.where(RANKED == 2, ignored, RANKED), ignore=(ignored,)))
        np.testing.assert_allclose(found, loss(x[RANKED != 2], RANKED[RANKED != 2]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arcface_loss", "proxy_nca_loss", "proxy_anchor_loss"])
def test_rows_without_a_proxy_are_ignored(name, random):
    x, proxies = float32(random.normal(size=(6, 4))), float32(random.normal(size=(3, 4)))
    weighted = {} if name == "proxy_anchor_loss" else {"reducer": losses.Reducer(class_weights=WEIGHTS)}

    @jax.jit
    @jax.value_and_grad
    def loss(x, labels):
        return getattr(losses, name)(x, labels, proxies=proxies, **weighted)

    known = RANKED < 2
    expected, gradient = loss(x[known], RANKED[known])
    for labels in (np.where(known, RANKED, -1), np.where(known, RANKED, 7)):
        found, moved = loss(x, labels)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_allclose(moved[known], gradient, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(moved[~known], 0)


def test_class_weights_must_be_one_for_each_class():
    for wrong in (np.ones((2, 1)), 1.0, np.zeros(0)):
        with pytest.raises(InputError, match=r"class_weights: expected one for each class \[c\], got shape"):
            losses.nt_xent_loss(jnp.eye(2), np.zeros(2, int), reducer=losses.Reducer(class_weights=wrong))
