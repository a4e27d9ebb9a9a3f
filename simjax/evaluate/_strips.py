"""The similarity matrix strip by strip on the host, for what NumPy does faster than XLA: sorting whole rows."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from simjax.similarity import Measure, pairwise

STRIP_ENTRIES = 2**21
"""Entries of a strip when no `block_size` is given: 8 MB of float32, and 16 MB more for the keys of a ranking."""


def strips(
    query: np.ndarray, gallery: np.ndarray, measure: Measure, block_size: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every query against the whole gallery, some queries at a time.

    Args:
        query: [q, d].
        gallery: [m, d].
        measure: of two rows.
        block_size: queries in a strip; None chooses.

    Yields:
        The strip's query numbers [r] and its values [r, m], in the type of the embeddings.
    """
    q = len(query)
    block_size = max(1, min(block_size or STRIP_ENTRIES // max(len(gallery), 1), q))
    columns = jnp.asarray(gallery)
    for start in range(0, q, block_size):
        rows = np.arange(start, start + block_size)
        # The last strip is filled up with rows from the start, so that its shape does not compile anew.
        values = np.asarray(pairwise(query[rows % q], columns, measure))
        yield rows[: q - start], values[: q - start]
