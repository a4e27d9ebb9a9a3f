"""Collapse of embeddings: an encoder that gives all images nearly one embedding, or embeddings along one line.

The loss alone does not show it: it stays near a constant, such as the margin of a triplet loss, which may as well be
slow progress. The spread of the embeddings and the share of their variance along one direction do; see
`evaluate.embedding_diagnostics`. They are computed from at most `ROWS` of the embeddings that an evaluation needs
anyway.
"""

import numpy as np

from simjax import evaluate

ROWS = 1_000
MIN_ROWS = 20  # fewer embeddings may lie on a line by chance
MIN_SPREAD, MAX_SHARE = 1e-5, 0.98
"""Runs of 100 to 200 steps of CNN, ViT and dense network on the digits, with ten objectives, end with a spread of 0.4
or more. With a learning rate of 3, a ViT ends with a spread below 1e-6. At the first steps, a healthy encoder may be
beyond the limits."""


def collapse_statistics(embeddings: np.ndarray) -> dict[str, float | None]:
    """Return the spread and the variance of evenly spaced rows of embeddings [n, e] along directions, or None."""
    rows = embeddings[:: max(1, -(-len(embeddings) // ROWS))].astype(np.float64)
    if not np.isfinite(rows).all():
        return dict.fromkeys(("spread", "effective_rank_centered", "largest_variance_share"))
    return {
        "spread": evaluate.spread(rows),
        "effective_rank_centered": evaluate.effective_rank(rows, center=True),
        "largest_variance_share": evaluate.largest_variance_share(rows),
    }


def describe_collapse(statistics: dict[str, float | None], embeddings: np.ndarray, classes: int) -> str | None:
    """Describe a collapse of embeddings [n, e] and what may help; None if they have not collapsed.

    Well separated embeddings of two classes lie on a line and those of three nearly so, and two numbers may be used
    unequally, so their directions are not judged.
    """
    spread, share, (n, size) = statistics["spread"], statistics["largest_variance_share"], embeddings.shape
    if n < MIN_ROWS or size < 2:
        return None
    if spread is not None and spread < MIN_SPREAD:
        seen = f"all images have nearly the same one (spread {spread:.1g}, on a scale from 0 to 1)"
    elif share is not None and share > MAX_SHARE and size > 2 and classes not in (2, 3):
        seen = f"they lie nearly on a line ({100 * share:.4g}% of their variance is along one direction)"
    else:
        return None
    remedies = "a lower `optimizer.learning_rate`, a larger `optimizer.warmup`, or another objective or miner may help"
    return f"the embeddings have collapsed, {seen}; {remedies}"
