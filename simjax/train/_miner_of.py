"""The miner of a step, made of settings: which pairs and triplets of the batch count."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from simjax.pairs import Relation
from simjax.train._objectives import MINERS
from simjax.train._settings import Mining, Settings
from simjax.train._takes import given, parameters

FIRST_HARDNESS, FIRST_START, FIRST_LENGTH = 0.2, 0.0, 0.5

Compared = tuple[Array, Any, dict[str, Array]]
"""What a loss compares: rows [b, e], their labels or relation, and what they are compared with, if not each other."""

Miner = Callable[[Compared, Array, Array], Compared]
"""Takes what could be compared, a key and the step."""


def miner_of(settings: Settings, steps: int) -> Miner | None:
    """The miner that settings describe, in a training of so many steps; None takes all pairs."""
    chosen = settings.mining
    if chosen.miner == "none":
        return None
    miner, wanted = MINERS[chosen.miner], parameters(MINERS[chosen.miner])
    options: dict[str, Any] = given(chosen, miner)
    if "measure" in wanted and chosen.measure is None:
        of_loss = settings.loss.measure or (None if settings.loss.normalise else "euclidean")
        options |= {} if of_loss is None else {"measure": of_loss}
    draws = chosen.miner in ("distance_weighted", "uniform_histogram")

    def mine(compared: Compared, key: Array, step: Array) -> Compared:
        rows, related, others = compared
        of_step: dict[str, Any] = {"key": key} if draws else {}
        if "hardness" in wanted:
            of_step["hardness"] = hardness(chosen, step, steps)
        found = miner(rows, related, **options | of_step | others)
        if isinstance(found, Relation):
            return rows, found, others
        anchors, references, relation = found  # of cluster_hard
        return anchors, relation, {"ref_embeddings": references}

    return mine


def hardness(mining: Mining, step: Array, steps: int) -> Array:
    """Of a curriculum at a step: level, then rising evenly to 1, then 1."""
    first = FIRST_HARDNESS if mining.hardness is None else mining.hardness
    start = FIRST_START if mining.start is None else mining.start
    length = FIRST_LENGTH if mining.length is None else mining.length
    risen = jnp.clip((step / steps - start) / max(length, 1 / steps), 0.0, 1.0)
    return 1 - (1 - first) * (1 - risen)  # exactly 1 at the end, which is all pairs
