"""Class ids and features of any integer type, in every loss: what JAX would cut to 32 bits stays what it is.

Arguments come from the signatures, so that a loss that is added later is tried as well.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses
from simjax.core import InputError, Relation, by_class

RANKED = np.array([0, 1, 0, 2, 1, 2])
WIDE = np.array([0, 2**32, 2**33])[RANKED]  # JAX alone would make them one class
PROXIES = {"soft_triple_loss": (3, 2, 4), "sub_center_arcface_loss": (3, 2, 4), "sub_center_outliers": (3, 2, 4)}


def with_labels():
    functions = {name: f for name, f in vars(losses).items() if inspect.isfunction(f)}
    return sorted(name for name, f in functions.items() if "labels" in inspect.signature(f).parameters)


def arguments(name):
    """Values for what a loss needs beside embeddings and labels."""
    random = np.random.default_rng(1)
    known = {
        "proxies": random.normal(size=PROXIES.get(name, (3, 4))),
        "teacher": random.normal(size=(6, 3)),
        "scores": random.normal(size=(6, 6)),
    }
    needed = inspect.signature(getattr(losses, name)).parameters.values()
    return {p.name: np.float32(known[p.name]) for p in needed if p.name in known}


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", with_labels())
@pytest.mark.usefixtures("unchecked")
def test_labels_and_features_of_64_bits(name):
    loss, given, learned = getattr(losses, name), arguments(name), "proxies" in arguments(name)
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (6, 4))

    def value(x, labels):
        return loss(x, labels=labels, **given)

    expected = value(np.float32(x), RANKED)
    assert np.isfinite(jax.tree.leaves(expected)[0]).all()
    same(value(x, RANKED), expected)
    same(value(x.tolist(), RANKED.tolist()), expected)
    if learned:
        with pytest.raises(InputError, match=f"labels: expected class ids below 3, the number of proxies, got {2**33}"):
            value(x, WIDE)
        same(value(x, np.where(RANKED, RANKED, -(2**32))), value(np.float32(x), np.where(RANKED, RANKED, -1)))
    else:
        same(value(x, WIDE), expected)
        same(value(x, (WIDE - 2**33).astype(np.uint64)), expected)
    for text in (np.array(list("abacbc")), list("abacbc"), np.array(list("abacbc"), object)):
        with pytest.raises(TypeError, match=r"labels: .*; pass np.unique\(labels, return_inverse=True\)\[1\]"):
            value(x, text)
