import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax.data import shuffled
from simjax.data._turns import draw


@pytest.mark.parametrize("n", [1, 2, 7, 64, 997])
def test_a_shuffle_is_a_permutation_of_the_key(n):
    orders = [shuffled(jax.random.key(seed), jnp.arange(n), n).tolist() for seed in (0, 0, 1)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert orders[0] == orders[1]
    assert n < 7 or orders[0] != orders[2]


def test_a_place_is_found_alone_and_for_a_traced_number():
    key = jax.random.key(3)
    order = shuffled(key, jnp.arange(10_000_000 - 4, 10_000_000), 10_000_000)
    alone = jax.jit(shuffled)(key, 9_999_998, 10_000_000)
    assert (alone.shape, alone.dtype) == ((), jnp.int32)
    assert int(alone) == int(order[2])
    assert shuffled(key, jnp.arange(6).reshape(2, 3), 6).shape == (2, 3)


def test_every_order_is_equally_likely():
    orders = jax.vmap(lambda key: shuffled(key, jnp.arange(4), 4))(jax.random.split(jax.random.key(0), 24_000))
    seen, count = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert seen.tolist() == sorted(map(list, itertools.permutations(range(4))))
    np.testing.assert_allclose(count, 1000, atol=4.5 * np.sqrt(1000))


def test_neighbours_are_any_two():
    """Of 31 members, which two stand at the first places, and how far apart are neighbours?"""
    orders = jax.vmap(lambda key: shuffled(key, jnp.arange(31), 31))(jax.random.split(jax.random.key(1), 20_000))
    orders = np.asarray(orders)
    pairs = np.bincount(orders[:, 0] * 31 + orders[:, 1], minlength=31 * 31).reshape(31, 31)[~np.eye(31, dtype=bool)]
    steps = np.bincount((np.diff(orders, axis=1) % 31).ravel())[1:]
    for count in (pairs, steps):
        chi_squared = np.sum((count - count.mean()) ** 2 / count.mean())
        degrees = len(count) - 1
        assert abs(chi_squared - degrees) < 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(("n", "k"), [(6, 2), (7, 3), (5, 5), (3, 7), (1, 2)])
def test_a_pass_has_everyone_once_before_anyone_again(n, k):
    visits = -(-n // k)
    take = jax.jit(lambda visit: draw(jax.random.key(5), visit, jnp.asarray(n), k))
    orders = set()
    for number in range(4):
        found = [take(number * visits + visit) for visit in range(visits)]
        members = np.concatenate([np.asarray(f.members) for f in found])
        assert all((np.asarray(f.visits) == number).all() for f in found)
        for start in range(0, len(members), n):
            part = members[start : start + n].tolist()
            assert len(set(part)) == len(part)
        assert set(members.tolist()) == set(range(n))
        assert all(len(set(np.asarray(f.members).tolist())) == min(n, k) for f in found)
        keys = np.concatenate([jax.random.key_data(f.keys) for f in found])
        parts = np.concatenate([np.stack([f.part, f.parts], axis=1) for f in found])
        seen = {(*key, *part) for key, part in zip(keys.tolist(), parts.tolist(), strict=True)}
        assert len(seen) == len(members)  # what is drawn within a member is drawn once
        assert n < k or (parts == [0, 1]).all()
        orders.add(tuple(members.tolist()))
    assert n < 5 or len(orders) == 4
