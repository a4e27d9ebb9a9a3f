"""A NaN is never hidden: every loss and mined relation that uses one is NaN, and an unused one changes nothing."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses, mining, pairs
from tests.public_functions import CASES, batch
from tests.slow import mostly_slow

COUNTS = {"losses.sub_center_outliers"}  # booleans and row numbers
LOSSES = sorted(name for name in CASES if name.startswith("losses.") and name not in COUNTS)
MINED = sorted(name for name in CASES if name.startswith("mining.") and callable(getattr(mining, name[7:])))
# Of these a case returns the relation's masks, the columns of hard negatives, or what the memory holds.
NOT_LOSSES = {"mining.hard_negatives", "mining.cross_batch_memory", "mining.push", "mining.statistics"}

PAIR_LOSSES = sorted(
    name
    for name, function in vars(losses).items()
    if inspect.isroutine(function)
    and name.endswith("_loss")
    and list(inspect.signature(getattr(losses, name)).parameters)[:2] == ["embeddings", "labels"]
)


def scalars(found):
    return [a for a in jax.tree.leaves(found) if jnp.ndim(a) == 0 and jnp.issubdtype(jnp.result_type(a), jnp.floating)]


@pytest.mark.parametrize("which", mostly_slow(["one row", "every row"], "one row"))
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_nan_is_nan(name, which):
    given = batch()
    rows = slice(None) if which == "every row" else slice(3, 4)
    poisoned = {"x", "y", "ref", "centers"} | ({"grades"} if name == "losses.contrastive_terms" else set())
    poisoned |= set() if name == "losses.margin_loss" else {"proxies"}  # from which its case makes beta
    given |= {n: given[n].at[rows].set(jnp.nan) for n in poisoned}

    def total(x):
        found = jax.tree.leaves(CASES[name](given | {"x": x}))
        return sum(jnp.sum(a) for a in found), scalars(found)

    (sum_of_all, found), gradient = jax.value_and_grad(total, has_aux=True)(given["x"])
    assert np.isnan(sum_of_all)
    assert np.isnan(found).all()
    if name.removeprefix("losses.") in PAIR_LOSSES:  # no number that rests on what replaces the NaN
        assert (np.isnan(gradient) | (gradient == 0)).all()


@pytest.mark.parametrize("name", [name for name in MINED if name not in NOT_LOSSES])
def test_a_loss_of_what_was_mined_among_nan_is_nan(name):
    given = batch()
    given["x"] = given["x"].at[3].set(jnp.nan)
    given["y"] = given["y"].at[3].set(jnp.nan)
    found = scalars(CASES[name](given))
    assert found
    assert np.isnan(found).all()


NEED_MORE = {"manifold_loss", "similarity_distillation_loss", "score_distillation_loss"} | {
    name for name in PAIR_LOSSES if "proxies" in inspect.signature(getattr(losses, name)).parameters
}


ONLY_WITH_POSITIVES = {"n_pairs_loss"}  # its columns are second rows of classes that have two


@pytest.mark.parametrize("name", [name for name in PAIR_LOSSES if name not in NEED_MORE | ONLY_WITH_POSITIVES])
def test_a_nan_that_is_a_negative_alone_makes_a_loss_nan(name):
    given = batch()
    options = {"beta": 1.2} if name == "margin_loss" else {}
    loss = getattr(losses, name)(given["x"].at[3].set(jnp.nan), given["labels"].at[3].set(9), **options)
    assert jnp.isnan(loss)


@pytest.mark.parametrize("name", [name for name in PAIR_LOSSES if name not in NEED_MORE])
def test_a_nan_that_is_in_no_pair_does_not_matter(name):
    given, loss = batch(), getattr(losses, name)
    labels = given["labels"].at[3].set(9)
    options = {"beta": 1.2} if name == "margin_loss" else {}

    @jax.jit
    def of(x):
        return jax.value_and_grad(lambda x: loss(x, pairs.by_class(labels, ignore=(9,)), **options))(x)

    value, gradient = of(given["x"].at[3].set(jnp.nan))
    expected, expected_gradient = of(given["x"])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_hard_negatives_rank_nan_after_all_numbers_and_before_nothing():
    x = jnp.array([[0.0], [1.0], [jnp.nan], [3.0], [0.5]])
    found = mining.hard_negatives(x, jnp.array([0, 1, 1, 1, 0]), k=4, measure="euclidean")
    np.testing.assert_array_equal(found[0], [1, 3, 2, -1])


OF_SETS = ("alignment", "centered_kernel_alignment", "frechet_distance", "maximum_mean_discrepancy")


@pytest.mark.parametrize("name", [*OF_SETS, "sliced_wasserstein_distance"])
def test_a_distance_of_two_sets_with_a_nan_is_nan(name):
    given = batch()
    given["x"] = given["x"].at[3, 1].set(jnp.nan)
    assert np.isnan(scalars(CASES[f"similarity.{name}"](given))).all()
