"""Collapse of embeddings: an encoder that gives all images nearly one embedding, or embeddings along one line.

The loss alone does not show it: it stays near a constant, such as the margin of a triplet loss, which may as well be
slow progress. The spread and the effective rank of the centered embeddings do; see `evaluate.embedding_diagnostics`.
They are computed from at most `ROWS` of the embeddings that an evaluation needs anyway.
"""

import numpy as np

from simjax import evaluate

ROWS = 1_000
MIN_ROWS = 20  # fewer embeddings may lie on a line by chance
MIN_SPREAD, MIN_RANK = 1e-3, 1.5
"""Runs of 100 to 200 steps of CNN, ViT and dense network on the digits, with ten objectives, end with a spread of 0.4
or more and a rank of 12 or more (2 for embeddings of two numbers). With a learning rate of 3, a ViT ends with a spread
below 1e-6. At the first steps, a healthy encoder may be below the limits."""


def collapse_statistics(embeddings: np.ndarray) -> dict[str, float | None]:
    """Return the spread and the centered effective rank of evenly spaced rows of embeddings [n, e], or None."""
    rows = embeddings[:: max(1, -(-len(embeddings) // ROWS))].astype(np.float64)
    if not np.isfinite(rows).all():
        return dict.fromkeys(("spread", "effective_rank_centered"))
    return {
        "spread": evaluate.spread(rows),
        "effective_rank_centered": evaluate.effective_rank(rows, center=True),
    }


def describe_collapse(statistics: dict[str, float | None], embeddings: np.ndarray, classes: int) -> str | None:
    """Describe a collapse of embeddings [n, e] and what may help; None if they have not collapsed.

    Well separated embeddings of two classes lie on a line and those of three nearly so, and two numbers may be used
    unequally, so their rank is not judged.
    """
    spread, rank, (n, size) = statistics["spread"], statistics["effective_rank_centered"], embeddings.shape
    if n < MIN_ROWS or size < 2:
        return None
    if spread is not None and spread < MIN_SPREAD:
        seen = f"all images have nearly the same one (spread {spread:.1g}, on a scale from 0 to 1)"
    elif rank is not None and rank < MIN_RANK and size > 2 and classes not in (2, 3):
        seen = f"they lie nearly on a line (effective rank {rank:.2f}, at most {size})"
    else:
        return None
    remedies = "a lower `optimizer.learning_rate`, a larger `optimizer.warmup`, or another objective or miner may help"
    return f"the embeddings have collapsed, {seen}; {remedies}"
