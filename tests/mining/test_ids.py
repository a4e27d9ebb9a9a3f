"""Every miner and the memory accept class ids and features of 64 bits.

Arguments are read from signatures, so new miners are tested as well.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simjax import mining
from simjax.core import InputError
from simjax.pairs import Relation
from tests.slow import mostly_slow

RANKED = np.array([0, 1, 0, 2, 1, 2])
LARGE = np.array([0, 2**32, 2**33])[RANKED]  # truncated to 32 bits they would be equal
MEMORY = {"push", "against"}
NAMES = sorted(
    name
    for name, f in vars(mining).items()
    if inspect.isfunction(f) and "labels" in inspect.signature(f).parameters and name not in MEMORY
)


masks = jax.jit(Relation.masks)


def found(name, x, labels):
    """Return the result of a miner as arrays."""
    function = getattr(mining, name)
    known = {"key": jax.random.key(0), "hardness": 0.5}
    parameters = inspect.signature(function).parameters.values()
    given = {p.name: known[p.name] for p in parameters if p.default is p.empty and p.name in known}
    out = function(x, labels, **given)
    rows, columns = np.arange(6)[:, None], np.arange(12 if name == "cluster_hard" else 6)[None]
    parts = out if isinstance(out, tuple) else (out,)
    return [masks(part, rows, columns) if isinstance(part, Relation) else jax.tree.leaves(part) for part in parts]


@pytest.mark.parametrize("name", mostly_slow(NAMES, "hard_negatives"))
@pytest.mark.usefixtures("unchecked")
def test_labels_and_features_of_64_bits(name):
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (6, 4))
    expected = found(name, np.float32(x), RANKED)
    for labels in (RANKED, LARGE, LARGE.tolist(), (LARGE - 2**33).astype(np.uint64)):
        jax.tree.map(np.testing.assert_array_equal, found(name, x, labels), expected)
    with pytest.raises(TypeError, match=r"^labels: .*; pass np.unique\(labels, return_inverse=True\)\[1\]$"):
        found(name, x, np.array(list("abacbc")))


def test_a_memory_refuses_ids_that_do_not_fit_its_dtype():
    memory, rows = mining.cross_batch_memory(4, 2), np.eye(2)
    memory = mining.push(memory, rows, np.array([7, -(2**31)]))
    for wrong in (np.array([0, 2**32]), np.array([0, 2**31], np.uint32), np.array([0, 2**63], np.uint64)):
        with pytest.raises(InputError, match="labels: expected ids that fit int32, the dtype of the memory"):
            mining.push(memory, rows, wrong)
    # Ids to compare with the memory may be any integers; they equal no id of the memory.
    positive, negative = masks(
        mining.against(memory, np.array([2**32 + 7, 7]), own=True), np.arange(2)[:, None], np.arange(4)[None]
    )
    np.testing.assert_array_equal(positive, [[0, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(negative, [[1, 1, 0, 0], [0, 1, 0, 0]])


def test_a_memory_made_with_x64_stores_ids_of_64_bits():
    with jax.enable_x64(True):
        memory = mining.cross_batch_memory(4, 2)
        assert memory.labels.dtype == jnp.int64
        memory = mining.push(memory, np.eye(2), np.array([0, 2**32]))
        memory = jax.jit(mining.push)(memory, np.eye(2), np.array([2**33, 2**32]))
        assert memory.labels.tolist() == [0, 2**32, 2**33, 2**32]
        positive, _ = masks(
            mining.against(memory, np.array([2**32, 0]), own=True), np.arange(2)[:, None], np.arange(4)[None]
        )
        np.testing.assert_array_equal(positive, [[0, 1, 0, 1], [1, 0, 0, 0]])
        with pytest.raises(InputError, match="labels: expected ids that fit int64, the dtype of the memory"):
            mining.push(memory, np.eye(2), np.array([0, 2**63], np.uint64))
        narrow = mining.CrossBatchMemory(**{**vars(memory), "labels": memory.labels.astype(jnp.int32)})
        with pytest.raises(InputError, match="labels: expected ids that fit int32, the dtype of the memory, got int64"):
            jax.jit(mining.push)(narrow, np.eye(2), np.array([0, 2**32]))
