"""Class ids and image numbers of 64 bits in the samplers: used as they are, or refused."""

import jax
import numpy as np
import pytest

from simjax.core import InputError
from simjax.data import class_table, hierarchy, sample_triplets


@pytest.mark.usefixtures("unchecked")
def test_class_tables():
    for labels in (np.array([1, 0, 1], np.uint64), [1, 0, 1]):
        assert class_table(labels, 2).rows.tolist() == [[1, 1], [0, 2]]
    with pytest.raises(InputError, match=r"labels: expected 0 \.\. 1, got 0 \.\. 4294967297"):
        class_table(np.array([0, 2**32 + 1]), 2)
    with pytest.raises(TypeError, match=r"labels: .*pass np.unique\(labels, return_inverse=True\)\[1\]"):
        class_table(["cat", "dog"], 2)
    with pytest.raises(TypeError, match=r"labels: expected integer class ids, got float64; pass labels.astype\(int\)"):
        class_table(np.array([0.0, 1.0]), 2)


@pytest.mark.usefixtures("unchecked")
def test_hierarchies_and_triplets():
    labels, above = np.array([0, 1, 1], np.uint64), np.array([0, 1, 1])
    assert hierarchy(labels, above).super_classes.rows.tolist() == [[0], [1]]
    for argument, given in (("labels", (labels + 2**33, above)), ("super_labels", (labels, above + 2**33))):
        with pytest.raises(InputError, match=f"^{argument}: expected integers that int32 holds"):
            hierarchy(*given)
    with pytest.raises(InputError, match="triplets: expected integers that int32 holds, got 0 to 4294967298"):
        sample_triplets(jax.random.key(0), 0, np.array([[0, 1, 2**32 + 2]]), 1)
    with pytest.raises(TypeError, match="triplets: expected integer"):
        sample_triplets(jax.random.key(0), 0, np.array([[0.0, 1.0, 2.0]]), 1)
